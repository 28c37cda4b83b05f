"""What a notebook cell cannot show of the cache: processes that are killed, disks that are full, writers that meet."""
import dataclasses
import json
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest

from latent_summ.encode.cache import Cache
from latent_summ.encode.cache_writer import CacheWriter
from latent_summ.encode.parts import merge_parts, part_fingerprint, part_folder, part_rows
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


def test_random_access_with_few_open_files(tmp_path):
    """A cache of more shards than a process may have files open; rows in any order, with repeats."""
    def read():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        for format in ("jsonl", "arrow"):
            with CacheWriter(tmp_path / format, FINGERPRINT, format=format, shard_rows=1) as w:
                w.add(rows() * 5)
                cache = w.finish()
            at = [99, 3, 50, 3, -1, *range(100)]
            got = cache.take(at, ("embedding", "target_ids", "id"))
            assert got["target_ids"] == [rows()[i % ROWS]["target_ids"] for i in at]
            assert got["id"] == [rows()[i % ROWS]["id"] for i in at]
            assert np.array_equal(got["embedding"], cache.embeddings()[at])
            assert cache.lengths().tolist() == [i % ROWS % 4 for i in range(100)]

    assert in_child(read) == 0


def take_in_another_process(cache): return cache.take([7, 0, 19], ("embedding", "target_ids"))


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_a_cache_is_sent_to_a_loader_process(tmp_path, format):
    cache = write(tmp_path, format)
    here = take_in_another_process(cache)  # its files are mapped now, which is not sent
    assert len(pickle.dumps(cache)) < 3000
    with multiprocessing.get_context("spawn").Pool(1) as pool: there = pool.apply(take_in_another_process, (cache,))
    assert np.array_equal(here["embedding"], there["embedding"]) and here["target_ids"] == there["target_ids"]


@pytest.mark.parametrize("linked", [True, False])
def test_merging_survives_a_kill_and_a_damaged_part_is_refused(tmp_path, linked, monkeypatch):
    def refuse(*_): raise OSError("no links on this file system")
    if not linked: monkeypatch.setattr(os, "link", refuse)
    everything = rows()
    whole = write(tmp_path / "whole" / "toy")
    for i in (2, 1):
        first, last = part_rows(ROWS, (i, 2), SHARD)
        with CacheWriter(part_folder(tmp_path / "parts" / "toy", (i, 2)), part_fingerprint(FINGERPRINT, ROWS, (i, 2), SHARD), shard_rows=SHARD) as w:
            w.add(everything[first:last])
            w.finish()
    real, count = os.replace, [0]

    def deadly(*args):
        count[0] += 1
        if count[0] == 4: os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    def die():
        os.replace = deadly
        merge_parts(tmp_path / "joined", [tmp_path / "parts"])

    assert os.WIFSIGNALED(in_child(die))
    with pytest.raises(CacheError): Cache.open(tmp_path / "joined" / "toy")
    (joined,) = merge_parts(tmp_path / "joined", [tmp_path / "parts"])
    assert files(joined.folder) == files(whole.folder)
    shard = tmp_path / "parts" / "toy.part-2-of-2" / "rows-00000.jsonl"
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:50] + bytes([data[50] ^ 4]) + data[51:])
    with pytest.raises(CacheError, match="toy.part-2-of-2/rows-00000.jsonl has changed"): merge_parts(tmp_path / "again", [tmp_path / "parts"])
    assert files(joined.folder) == files(whole.folder)


# From here on texts are embedded, with the small encoder of the package; torch is loaded only now, as the tests above fork.

@pytest.fixture(scope="module")
def small():
    """Config, encoder and decoder."""
    import torch
    from latent_summ.encode.backbones import load_decoder, load_encoder
    from latent_summ.config import Config
    torch.set_num_threads(1)
    cfg = Config.preset("mini").override(device="cpu", messenger_rows=200, max_eval_samples=20, run_pretraining=False)
    return cfg, load_encoder(cfg), load_decoder(cfg)


@pytest.fixture
def shards_of_32(monkeypatch):
    from latent_summ.encode import embed
    monkeypatch.setattr(embed, "SHARD_ROWS", 32)
    return embed


def embed_and_signal(small, embed, folder, signals=()):
    """Embed 150 rows in a forked process, where a signal comes during each of these batches. Returns its output and the number of batches."""
    cfg, encoder, decoder = small
    ours, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        one_batch, signals, count = embed.Embedder.batch, dict(signals), [0]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with SIGINT ignored
        sys.stdout = os.fdopen(its, "w", buffering=1)

        def signalled(self, ids):
            print("batch")
            count[0] += 1
            if count[0] in signals: os.kill(os.getpid(), signals[count[0]])
            return one_batch(self, ids)

        embed.Embedder.batch = signalled
        try: print("finished", len(embed.build_cache(cfg.override(preprocess_cache_dir=str(folder)), encoder, decoder, max_rows=150)))
        except BaseException as e: print(type(e).__name__, e)
        finally: os._exit(0)
    os.close(its)
    with os.fdopen(ours) as f: lines = list(f)
    os.waitpid(pid, 0)
    return "".join(line for line in lines if line != "batch\n"), lines.count("batch\n")


def test_ctrl_c_finishes_the_shard_and_the_next_run_goes_on(tmp_path, small, shards_of_32):
    out, batches = embed_and_signal(small, shards_of_32, tmp_path / "straight")
    assert out == "finished 150\n"
    expected = files(next((tmp_path / "straight").iterdir()))
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / number.name
        out, some = embed_and_signal(small, shards_of_32, folder, {1: number})
        assert "Finishing this shard, then stopping (press Ctrl-C again to quit at once)" in out
        assert "Interrupted Stopped while embedding messenger train: 32 of 150 rows are kept in " in out and "The same command continues from there." in out
        (unfinished,) = folder.iterdir()
        assert set(files(unfinished)) == {"partial.json", "rows-00000.jsonl", "offsets-00000.bin"}
        out, rest = embed_and_signal(small, shards_of_32, folder)
        assert out == "finished 150\n" and some + rest == batches, "a batch was embedded twice, or not at all"
        assert files(unfinished) == expected


def test_a_second_ctrl_c_quits_at_once(tmp_path, small, shards_of_32):
    out, batches = embed_and_signal(small, shards_of_32, tmp_path, {1: signal.SIGINT, 2: signal.SIGINT})
    assert "KeyboardInterrupt" in out and batches == 2
    (unfinished,) = tmp_path.iterdir()
    assert not [n for n in files(unfinished) if n.startswith("rows-")]


@pytest.mark.parametrize("format", ["jsonl", "arrow"])
def test_parts_join_to_the_cache_of_one_machine(tmp_path, small, shards_of_32, format):
    cfg, encoder, decoder = small
    cfg = cfg.override(preprocess_format=format)
    here, there = (cfg.override(preprocess_cache_dir=str(tmp_path / name)) for name in ("here", "there"))
    whole = shards_of_32.preprocess(here, encoder, decoder)
    for i in (3, 1):
        shards_of_32.preprocess(there, encoder, decoder, part=(i, 3))
    with pytest.raises(CacheError, match="lacks its rows from 64 on .200 in all; there are the parts 1/3, 3/3"): merge_parts(tmp_path / "there")
    shards_of_32.preprocess(there, encoder, decoder, part=(2, 3))
    merge_parts(tmp_path / "there")
    joined = shards_of_32.preprocess(there, uncallable(encoder), decoder)
    assert set(joined) == set(whole)
    for key in whole: assert files(joined[key].folder) == files(whole[key].folder)


def uncallable(encoder):
    """An encoder that must not be called."""
    import torch

    class Absent(torch.nn.Module):
        config = encoder.model.config
        def forward(self, **_): raise AssertionError("the encoder was called")

    return dataclasses.replace(encoder, model=Absent())


def test_without_preprocessing_caches_are_opened_or_it_is_said_what_to_do(tmp_path, small, shards_of_32):
    cfg, encoder, decoder = small
    cfg = cfg.override(preprocess_cache_dir=str(tmp_path))
    only_open, absent = cfg.override(run_preprocessing=False), uncallable(encoder)
    with pytest.raises(CacheError, match=r"messenger \(train\): There is no cache in .* run `latent_summ cache` with the same settings first, or leave out --no-run-preprocessing"):
        shards_of_32.preprocess(only_open, absent, decoder)
    made = shards_of_32.preprocess(cfg, encoder, decoder)
    opened = shards_of_32.preprocess(only_open, absent, decoder)
    assert {k: c.folder for k, c in opened.items()} == {k: c.folder for k, c in made.items()}
    with pytest.raises(CacheError, match="was made for other settings: max_target_len 64, not 32"):
        shards_of_32.preprocess(only_open.override(max_target_len=32), absent, decoder)
    shard = made["pairs/validation"].shards[0].path
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CacheError, match=r"messenger \(validation\): .*bytes instead of"): shards_of_32.preprocess(only_open, absent, decoder)


def test_other_settings_make_a_new_cache_and_name_what_differs(tmp_path, small, shards_of_32, capsys):
    cfg, encoder, decoder = small
    cfg = cfg.override(preprocess_cache_dir=str(tmp_path))
    first = shards_of_32.build_cache(cfg, encoder, decoder, max_rows=40)
    before = files(first.folder)
    second = shards_of_32.build_cache(cfg.override(max_seq_len=64), encoder, decoder, max_rows=40)
    assert "a new cache is made" in (told := capsys.readouterr().err) and "max_seq_len 256, not 64" in told
    assert second.folder != first.folder and files(first.folder) == before
    assert "% of rows exceed max_seq_len=64 and were cut" in told and second.manifest["counts"]["cut_inputs"] > 0
    stamps = {p.name: p.stat().st_mtime_ns for p in first.folder.iterdir()}
    shards_of_32.build_cache(cfg, uncallable(encoder), decoder, max_rows=40)
    assert {p.name: p.stat().st_mtime_ns for p in first.folder.iterdir()} == stamps
    rebuilt = shards_of_32.build_cache(cfg.override(skip_preprocessing_if_cached=False), encoder, decoder, max_rows=40)
    assert rebuilt.folder == first.folder and files(first.folder) == before
    assert {p.name: p.stat().st_mtime_ns for p in first.folder.iterdir()} != stamps


def test_out_of_memory_halves_the_budget_and_keeps_the_order(tmp_path, small, shards_of_32, capsys):
    import torch
    cfg, encoder, decoder = small
    widest = []

    class Small(torch.nn.Module):
        config = encoder.model.config
        def forward(self, input_ids, **kw):
            if widest and input_ids.numel() > 700: raise torch.OutOfMemoryError("no room any more")
            widest.append(input_ids.numel())
            return encoder.model(input_ids=input_ids, **kw)

    build = lambda folder, e: shards_of_32.build_cache(cfg.override(preprocess_cache_dir=str(tmp_path / folder)), e, decoder, max_rows=100)
    plenty, scarce = build("plenty", encoder), build("scarce", dataclasses.replace(encoder, model=Small()))
    assert "Out of memory" in capsys.readouterr().err and widest[0] > 700 >= max(widest[1:])
    assert scarce.ids == plenty.ids and scarce.targets() == plenty.targets()
    for field in ("embedding", "summary_embedding"):
        a, b = plenty.embeddings(field), scarce.embeddings(field)
        assert np.abs(a - b).max() <= 0.02 * np.abs(a).max(), field


def test_memory_does_not_grow_with_the_rows(tmp_path, small, shards_of_32):
    """Peak of what Python and numpy hold while 8 and 64 shards are embedded."""
    import torch
    cfg, encoder, decoder = small

    class Quick(torch.nn.Module):
        config = encoder.model.config
        def forward(self, input_ids, **_): return types.SimpleNamespace(last_hidden_state=torch.zeros(*input_ids.shape, encoder.hidden_size))

    class Generated:
        def __init__(self, n): self.n, self.report = n, dict(kept=n, identity=f"{n} rows")
        def __len__(self): return self.n
        def __getitem__(self, at):
            one = lambda i: {"id": str(i), "text": f"Row {i}: see you at {i % 12}. " * 20}
            return [one(i) for i in range(*at.indices(self.n))] if isinstance(at, slice) else one(at)

    def peak(n):
        own, quick = cfg.override(preprocess_cache_dir=str(tmp_path / str(n))), dataclasses.replace(encoder, model=Quick())
        tracemalloc.start()
        try: cache = shards_of_32.build_cache(own, quick, decoder, "texts", "made", rows=Generated(n))
        finally: most = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
        assert len(cache) == n
        return most

    peak(64)  # imports and first-time tables
    few, many = peak(8 * 32), peak(64 * 32)
    assert many < 2 * few + 100_000, (few, many)  # 300 bytes of manifest a shard; the rows themselves would be ten times as much
