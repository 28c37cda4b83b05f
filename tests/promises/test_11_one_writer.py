"""A cache has one writer and a run folder one training; a second one gets a clear error, readers get whole rows, and the lock of a dead process is recovered.

Attack: ten writers start at the same moment; the successful one is killed and ten more start; ten readers read all the while, even when finished files
become visible late and in another order, as on a network file system; two trainings continue in the same run folder.
"""
import os
import shutil
import signal
import time
import traceback

import pytest
from faults import in_child
from test_cache import FINGERPRINT, ROWS, SHARD, files, rows, write

from latent_summ.encode.cache import Cache
from latent_summ.encode.cache_writer import CacheWriter
from latent_summ.runtime import CacheError

ALSO = ["test_cache.py::test_two_writers_and_a_dead_one"]


def together(n:int, f) -> list:
    "Run `f(i)` in n forked processes that start at the same moment; their exit statuses."
    ready, go = os.pipe()
    pids = []
    for i in range(n):
        pid = os.fork()
        if not pid:
            try:
                os.close(go)
                os.read(ready, 1)  # returns when the parent closes its end
                os._exit(f(i))
            except BaseException:
                traceback.print_exc()  # pytest shows it where the test fails
                os._exit(99)
        pids.append(pid)
    os.close(go); os.close(ready)
    return [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids]


def test_ten_writers(tmp_path, attacks):
    expected = files(write(tmp_path / "straight").folder)
    def one(i, die):
        try:
            with CacheWriter(tmp_path / "cache", FINGERPRINT, shard_rows=SHARD) as w:
                time.sleep(0.3)  # long enough that all others meet the lock
                if die: os.kill(os.getpid(), signal.SIGKILL)
                w.add(rows()[w.done:])
                w.finish()
            return 0
        except CacheError as e: return 1 if "is being written by" in str(e) or "is complete" in str(e) else 2
    for die in (True, False):
        ended = together(10, lambda i, die=die: one(i, die))
        assert set(ended) <= {0, 1, -signal.SIGKILL} and ended.count(1) >= 5, ended
    assert files(tmp_path / "cache") == expected
    attacks(20)


def test_ten_readers_while_it_is_written(tmp_path, attacks):
    want = [repr(r["target_ids"]) for r in rows()]
    def read(i):
        if i == 0:
            for _ in range(12):
                with CacheWriter(tmp_path / "cache", FINGERPRINT, shard_rows=SHARD, overwrite=True) as w:
                    for r in rows(): w.add([r])
                    w.finish()
            return 0
        whole, until = 0, time.monotonic() + 1.5
        while time.monotonic() < until or (not whole and time.monotonic() < until + 60): # a writer that failed leaves nothing to read
            try: cache = Cache.open(tmp_path / "cache")
            except CacheError: continue
            try: got = [repr(cache[j]["target_ids"]) for j in range(len(cache))]
            except (CacheError, OSError, ValueError): continue  # thrown away under our feet by `overwrite`
            if got != want: return 7
            whole += 1
        return 0 if whole else 8
    assert together(10, read) == [0] * 10
    attacks(9)


def test_files_that_appear_late_and_out_of_order(tmp_path, draw, attacks):
    "A finished cache that is copied, or seen over a network, file by file in any order: refused until the last one is there."
    source = write(tmp_path / "source").folder
    names = sorted(files(source))
    for i in range(20):
        there = tmp_path / str(i)
        there.mkdir()
        draw.shuffle(names)
        needed = {n for n in names if not n.startswith("offsets")}
        for name in names:
            if needed:
                with pytest.raises(CacheError): Cache.open(there)
            shutil.copy(source / name, there / name)
            needed.discard(name)
        assert len(Cache.open(there)) == ROWS
    attacks(20)


def test_two_trainings_in_one_run_folder(tmp_path):
    from latent_summ.train import run, stages
    from latent_summ.config import Config, LatentSummError
    cfg = Config.preset("mini").override(run_dir=str(tmp_path))
    (tmp_path / "events.jsonl").touch()  # so that there is a run to resume
    def second():
        with pytest.raises(LatentSummError, match="is being written by process"): stages.run_pipeline(cfg, resume=True)
    with run.held_folder(tmp_path): assert in_child(second) == 0
