"""SIGKILL while caching loses at most one shard; the finished bytes equal those of an undisturbed run.

Attack: writers are killed at random moments, one after the other, until one finishes, twenty times, in both formats; and (elsewhere) at every write point,
while merging, and by Ctrl-C in the middle of a batch.
"""
import os
import signal
import time

import pytest
from test_cache import FINGERPRINT, ROWS, SHARD, files, rows, write

from latent_summ.encode.cache_writer import CacheWriter

ALSO = ["test_cache.py::test_sigkill_at_every_write_point", "test_cache.py::test_merging_survives_a_kill_and_a_damaged_part_is_refused",
        "test_cache.py::test_ctrl_c_finishes_the_shard_and_the_next_run_goes_on"]


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_random_kills_until_it_is_through(format, tmp_path, draw, attacks):
    expected, kills = files(write(tmp_path / "straight", format).folder), 0
    for i in range(10):
        folder, before = tmp_path / str(i), 0
        while not (folder / "manifest.json").exists():
            told, goal = killed_after(folder, format, draw.randrange(1, ROWS + 5), draw.uniform(0, 0.004))
            kills += goal
            if (folder / "manifest.json").exists(): break
            with CacheWriter(folder, FINGERPRINT, format=format, shard_rows=SHARD) as w: done = w.done
            assert before + SHARD * told <= done <= ROWS, "a finished shard was lost"
            before = done
        assert files(folder).keys() - {".lock", "partial.json"} == expected.keys() and all(files(folder)[n] == expected[n] for n in expected)
    attacks(kills)


def killed_after(folder, format, rows_written:int, later:float) -> tuple: # (finished shards it told of, whether it was killed)
    "A writer that is killed a moment after it was handed so many rows."
    ours, its = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with CacheWriter(folder, FINGERPRINT, format=format, shard_rows=SHARD) as w:
                for r in rows()[w.done:]:
                    w.add([r])
                    os.write(its, b"." if w.buffer else b"x")
                w.finish()
        finally: os._exit(0)
    os.close(its)
    said = b""
    while len(said) < rows_written and (more := os.read(ours, 1)): said += more
    time.sleep(later)
    os.kill(pid, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with os.fdopen(ours, "rb") as f: said += f.read()
    return said.count(b"x"), killed
