"""What a notebook cell cannot show of the cache: processes that are killed, disks that are full, writers that meet."""
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from latent_summ.cache import Cache, CacheWriter
from latent_summ.runtime import CacheError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ROWS, SHARD = 20, 6
FINGERPRINT = {"encoder": "toy"}


def rows():
    g = np.random.default_rng(0)
    return [{"id": f"row {i}", "embedding": g.standard_normal((1, 4), dtype=np.float32), "target_ids": list(range(i % 4))} for i in range(ROWS)]


def write(folder, format="jsonl"):
    with CacheWriter(folder, FINGERPRINT, format=format, shard_rows=SHARD) as w:
        w.add(rows()[w.done:])
        return w.finish()


def files(folder): return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def in_child(f):
    """Run `f` in a forked process; returns its wait status."""
    pid = os.fork()
    if pid == 0:
        try: f()
        except BaseException: os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def killed_at(n, folder, format):
    """Write the cache, but die by SIGKILL at the n-th of: file made durable, file renamed (before and after), file removed."""
    calls = [0]

    def deadly(real, after):
        def call(*args, **kw):
            calls[0] += 1
            if calls[0] == n: os.kill(os.getpid(), signal.SIGKILL)
            out = real(*args, **kw)
            calls[0] += after
            if after and calls[0] == n: os.kill(os.getpid(), signal.SIGKILL)
            return out
        return call

    os.fsync, os.replace, os.unlink = deadly(os.fsync, 0), deadly(os.replace, 1), deadly(os.unlink, 0)
    write(folder, format)


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_sigkill_at_every_write_point(tmp_path, format):
    expected = files(write(tmp_path / "straight", format).folder)
    n, kept = 1, set()
    while True:
        folder = tmp_path / f"killed-{n}"
        status = in_child(lambda n=n, folder=folder: killed_at(n, folder, format))
        if not os.WIFSIGNALED(status): break
        try: opened = Cache.open(folder)
        except CacheError: opened = None
        assert opened is None or len(opened) == ROWS, "an unfinished cache was opened"
        with CacheWriter(folder, FINGERPRINT, format=format, shard_rows=SHARD, overwrite=opened is not None) as w: kept.add(w.done)
        write(folder, format)
        assert files(folder) == expected, f"killed at write point {n}"
        n += 1
    assert os.WEXITSTATUS(status) == 0 and files(folder) == expected
    assert n > 15 and kept == {0, 6, 12, 18, 20}  # every number of finished shards came up


def test_torn_at_every_byte_of_the_last_record(tmp_path):
    expected = files(write(tmp_path / "straight").folder)
    with pytest.raises(KeyboardInterrupt), CacheWriter(tmp_path / "torn", FINGERPRINT, shard_rows=SHARD) as w:
        w.add(rows()[:13])
        raise KeyboardInterrupt
    unfinished = files(tmp_path / "torn")
    shard = unfinished["rows-00001.jsonl"]
    last = shard[:-1].rindex(b"\n") + 1
    for size in range(last, len(shard), 7):
        for name, data in unfinished.items(): (tmp_path / "torn" / name).write_bytes(data)
        (tmp_path / "torn" / "rows-00001.jsonl").write_bytes(shard[:size])
        (tmp_path / "torn" / ".rows-00002.jsonl.1.tmp").write_bytes(shard[:size])
        write(tmp_path / "torn")
        assert files(tmp_path / "torn") == expected, size
        for p in (tmp_path / "torn").iterdir(): p.unlink()


def test_two_writers_and_a_dead_one(tmp_path, capsys):
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with CacheWriter(tmp_path, FINGERPRINT):
            os.write(tell, b"x")
            signal.pause()
        os._exit(0)
    try:
        os.read(ready, 1)
        with pytest.raises(CacheError, match=f"process {pid} on "): write(tmp_path)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(write(tmp_path)) == ROWS
    assert f"recovered the lock of process {pid}" in capsys.readouterr().err
    assert not (tmp_path / ".lock").exists()


def test_full_disk_keeps_what_is_finished(tmp_path):
    expected = files(write(tmp_path / "straight").folder)
    limit = len(expected["rows-00000.jsonl"]) + 5  # the lists of shards outgrow it: the second one cannot be saved

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try: write(tmp_path / "full")
        except CacheError as e: (tmp_path / "message").write_text(str(e))

    assert in_child(fill) == 0
    message = (tmp_path / "message").read_text()
    assert "are kept: run the same command again" in message
    assert not [n for n in files(tmp_path / "full") if n.endswith(".tmp")]
    write(tmp_path / "full")
    assert files(tmp_path / "full") == expected


def test_a_flipped_byte_is_found_in_every_file(tmp_path):
    expected = files(write(tmp_path).folder)
    for name, data in expected.items():
        for at in range(0, len(data), 23):
            flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1:]
            (tmp_path / name).write_bytes(flipped)
            if name.startswith("offsets"):  # derived: rebuilt, and never believed
                cache = Cache.open(tmp_path)
                assert [cache[i]["id"] for i in range(ROWS)] == [r["id"] for r in rows()]
                assert (tmp_path / name).read_bytes() == data
            else:
                same_meaning = name == "manifest.json" and _same_json(flipped, data)
                if not same_meaning:
                    with pytest.raises(CacheError): Cache.open(tmp_path)
                (tmp_path / name).write_bytes(data)


def _same_json(a, b):
    try: return json.loads(a) == json.loads(b)
    except ValueError: return False
