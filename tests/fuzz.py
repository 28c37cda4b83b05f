"""Broken and hostile files for everything that reads one, and odd words for the command line.

    python tests/fuzz.py [--inputs 100000] [--seed N] [--target NAME ...] [--out benchmarks/results/fuzz.json]      (make fuzz)

Each target reads a file the package writes or takes. Inputs are valid files changed at random: bits, bytes, pieces, interesting tokens, and for JSON also
its structure. Some get past the first gate on purpose: manifests are sealed again, checkpoints packed again, hashes computed anew. Allowed: reading it, or
one of the package's own errors. Anything else, five seconds without an answer, or memory beyond the limit is a break; its input is kept in
tests/fuzz_corpus/, which every later run tries first.
"""
import argparse
import contextlib
import hashlib
import io
import json
import mmap
import os
import platform
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "fuzz_corpus"
SECONDS, MEMORY = 5, 3 * 2**30  # an input may take, and the process may have beyond what it starts with

# --- changing things at random ----------------------------------------------------------------------------------------

TOKENS = [b"null", b"-1", b"1e999", b"NaN", b"\"\\ud800\"", b"9" * 40, b"9" * 5000, b"[" * 3000, b"{\"a\":" * 2000, b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"../../etc/passwd",
          b"true", b"[]", b"{}", b"\"\"", b"0", b"18446744073709551615", b"-9223372036854775808", b"\xed\xa0\x80"]
VALUES = [None, True, False, 0, -1, 1, 2**31, 2**63, -2**63 - 1, 10**400, 0.5, 1e308, "", "a\0b", "\ud800", "../../x", "/etc/passwd", [], {}, [[]], [None], {"": None}, "x" * 10000]


def bent(data:bytes, draw:random.Random, other:bytes) -> bytes:
    "Bytes with one to four random changes."
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        n, at = len(out), draw.randrange(len(out) + 1)
        kind = draw.randrange(8)
        if kind == 0 and n: out[at % n] ^= 1 << draw.randrange(8)
        elif kind == 1 and n: out[at % n] = draw.choice((0, 255, 127, 128, draw.randrange(256)))
        elif kind == 2: del out[at:at + draw.choice((1, 2, 8, 64, n))]
        elif kind == 3: out[at:at] = draw.choice(TOKENS)
        elif kind == 4: out[at:at] = out[at:at + draw.choice((1, 8, 100))] * draw.choice((1, 2, 20))
        elif kind == 5: out[at:at + 8] = draw.choice((0, 1, 2**31 - 1, 2**32, 2**63 - 1, 2**64 - 1, n)).to_bytes(8, "little")
        elif kind == 6: out[at:] = other[draw.randrange(len(other) + 1):]
        else: del out[at:]
    return bytes(out)


def restructured(tree, draw:random.Random):
    "A JSON tree with one node replaced, removed, renamed or doubled."
    tree = json.loads(json.dumps(tree))
    spots, queue = [], [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, dict | list):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            spots += [(node, k) for k in keys]
            queue += [node[k] for k in keys]
    if not spots or draw.random() < 0.02: return draw.choice(VALUES)
    for node, k in draw.choices(spots, k=draw.choice((1, 1, 3))):
        if isinstance(node, dict) and k not in node or isinstance(node, list) and k >= len(node): continue
        kind = draw.randrange(5)
        if kind < 3: node[k] = draw.choice(VALUES)
        elif kind == 3: del node[k]
        elif isinstance(node, dict): node[f"{k}{draw.choice(('', 's', '_'))}"] = node.pop(k)
        else: node.insert(k, node[k])
    return tree


def as_json(tree) -> bytes: return json.dumps(tree, ensure_ascii=True).encode()


# --- what is attacked -------------------------------------------------------------------------------------------------

class Target:
    "Valid inputs, a way to bend them, and the code that reads the result. `make` runs once."
    def __init__(self, folder:Path): self.folder = folder; self.seeds = self.make()
    def make(self) -> list: raise NotImplementedError
    def bend(self, draw:random.Random) -> bytes: return bent(draw.choice(self.seeds), draw, draw.choice(self.seeds))
    def read(self, data:bytes): raise NotImplementedError


class ConfigFile(Target):
    def make(self):
        from latent_summ.config import PRESETS, Config
        self.trees = [vars(Config()), *PRESETS.values(), dict(latent_dim=256)]
        return [as_json(t) for t in self.trees]
    def bend(self, draw): return as_json(restructured(draw.choice(self.trees), draw)) if draw.random() < 0.5 else super().bend(draw)
    def read(self, data):
        from latent_summ.config import Config
        path = self.folder / "config.json"
        path.write_bytes(data)
        vars(Config.load(path))


class CacheFiles(Target):
    "One file of a small cache; a manifest may be sealed again, a shard be entered with its new size and hash."
    format, file = "jsonl", "manifest.json"
    def make(self):
        import numpy as np

        from latent_summ.encode.cache_writer import CacheWriter
        g = np.random.default_rng(0)
        rows = [{"id": f"row {i}", "embedding": g.standard_normal((2, 4), dtype=np.float32), "target_ids": list(range(i % 4)), "text": f"text {i}"} for i in range(9)]
        with CacheWriter(self.folder, {"encoder": dict(name="toy", revision="1")}, format=self.format, shard_rows=5) as w:
            w.add(rows)
            w.finish(dict(source=dict(kept=9)))
        self.manifest, self.good = json.loads((self.folder / "manifest.json").read_text()), {p.name: p.read_bytes() for p in self.folder.iterdir()}
        return [self.good[n] for n in sorted(self.good) if n.startswith(self.file)]

    def put(self, name:str, data:bytes):
        for n, d in self.good.items():
            if n != name: (self.folder / n).write_bytes(d)
        (self.folder / name).write_bytes(data)

    def use(self):
        from latent_summ.encode.cache import Cache
        cache = Cache.open(self.folder, {"encoder": dict(name="toy", revision="1")})
        for k, f in cache.fields.items():
            if "shape" in f: cache.embeddings(k); cache.stored(k)
            elif f["kind"] == "ints": cache.targets(k); cache.lengths(k)
            else: cache.texts(k)
        for i in range(len(cache)): cache[i]
        return cache

    def read(self, data):
        self.put(self.file, data)
        self.use()


class Manifest(CacheFiles):
    def bend(self, draw):
        if draw.random() < 0.4: return super().bend(draw)
        from latent_summ.encode.cache import seal
        tree = restructured(self.manifest, draw)
        with contextlib.suppress(TypeError, AttributeError): tree = tree | {"seal": seal(tree)}
        return as_json(tree)


class PartialManifest(Manifest):
    "The list of finished shards, which a writer takes up."
    def read(self, data):
        from latent_summ.encode.cache_writer import CacheWriter
        self.put("partial.json", data)
        (self.folder / "manifest.json").unlink(missing_ok=True)
        with CacheWriter(self.folder, {"encoder": dict(name="toy", revision="1")}, format=self.format, shard_rows=5) as w: w.done  # noqa: B018


class Offsets(CacheFiles):
    file = "offsets-00000.bin"
    def make(self):
        seeds = super().make()
        self.rows = [repr(self.use()[i]) for i in range(9)]
        return seeds
    def read(self, data):
        self.put(self.file, data)
        cache = self.use()
        if [repr(cache[i]) for i in range(9)] != self.rows: raise AssertionError("a wrong index was believed")


class JsonlShardFile(CacheFiles):
    file = "rows-00000.jsonl"


class ArrowShardFile(CacheFiles):
    format, file = "arrow", "rows-00000.arrow"


class TrustedShard(CacheFiles):
    "A shard whose size and hash stand in the manifest: made by a broken writer, or by somebody who means harm."
    def read(self, data):
        from latent_summ.encode.cache import seal
        tree = json.loads(json.dumps(self.manifest))
        tree["shards"][0] |= dict(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        (self.folder / "manifest.json").write_bytes(as_json(tree | {"seal": seal(tree)}))
        self.good["manifest.json"] = (self.folder / "manifest.json").read_bytes()
        self.put(self.file, data)
        self.use()


class TrustedJsonl(TrustedShard):
    file = "rows-00000.jsonl"


class TrustedArrow(TrustedShard):
    format, file = "arrow", "rows-00000.arrow"


class Rows(Target):
    "Rows of a source: lines of JSON."
    def make(self): return [b'{"id": 1, "dialogue": "Ann: hi\\nBob: h\\u00e9", "summary": "They greet."}\n' * 3, b'{"dialogue": null}\n[]\n', "\u2028é\n".encode()]
    def read(self, data):
        from latent_summ.data.shapes import json_line
        from latent_summ.data.sources import clean_rows
        rows = clean_rows((json_line(line) for line in data.decode(errors="replace").split("\n") if line.strip()), {"id": "id", "dialogue": "dialogue", "summary": "summary"})
        for row in rows: row["dialogue"].encode() + row["summary"].encode()


class SourceFile(Target):
    "A whole file of a source, of every format, through the readers."
    def make(self):
        import gzip
        import lzma

        import pandas as pd
        import zstandard
        rows = [dict(id=str(i), dialogue=f"Ann: hi {i}", summary=f"They greet {i}.") for i in range(5)]
        lines = "\n".join(map(json.dumps, rows)).encode()
        frame = pd.DataFrame(rows)
        return [b"%d" % i + s for i, s in enumerate([lines, as_json(rows), frame.to_csv(index=False).encode(), frame.to_parquet(), gzip.compress(lines), lzma.compress(lines),
                                                      zstandard.compress(lines)])]
    def bend(self, draw):
        seed = draw.choice(self.seeds)
        return seed[:1] + bent(seed[1:], draw, draw.choice(self.seeds))
    def read(self, data):
        from latent_summ.config import Config
        from latent_summ.data.sources import load_pairs
        endings = ("jsonl", "json", "csv", "parquet", "jsonl.gz", "jsonl.xz", "jsonl.zst")
        kind = data[0] - 48 if data and 48 <= data[0] < 55 else 0
        path = self.folder / f"x.train.{endings[kind]}"
        path.write_bytes(data[1:])
        try: len(load_pairs(Config(dataset_name=str(path), preprocess_validation_fraction=0.5)))
        finally: path.unlink()


class Checkpoint(Target):
    "A checkpoint as bytes, and with a changed pickle inside a sound zip."
    def make(self):
        import torch

        from latent_summ.train.checkpoint import save_checkpoint
        path = save_checkpoint(self.folder / "a.pt", dict(model=dict(w=torch.arange(6.).view(2, 3), b=torch.zeros(2, dtype=torch.int8)),
                                                                   optimizers=[dict(state={0: dict(step=1)})]),
                               dict(kind="model", stage="x", config=dict(latent_dim=256), position=dict(step=1)))
        old = io.BytesIO()
        torch.save(dict(a=torch.zeros(3)), old, _use_new_zipfile_serialization=False)
        return [path.read_bytes(), old.getvalue()]
    def bend(self, draw):
        if draw.random() < 0.5: return super().bend(draw)
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.seeds[0])) as old, zipfile.ZipFile(out, "w") as new:
            names = old.namelist()
            target = names[0] if draw.random() < 0.8 else draw.choice(names)
            for name in names:
                data = old.read(name)
                new.writestr(name, bent(data, draw, data) if name == target else data)
        return out.getvalue()
    def read(self, data):
        from latent_summ.train.checkpoint import load_checkpoint
        path = self.folder / "b.pt"
        path.write_bytes(data)
        load_checkpoint(path)


class Export(Target):
    "config.json of an exported model, hashed again, then its weights."
    def make(self):
        import torch
        from safetensors.torch import save
        self.weights = save(dict(w=torch.arange(6.).view(2, 3)), dict(format="pt"))
        self.about = dict(library_name="latent_summ", format=1, stage="x", backbones=dict(encoder=dict(name="mini", revision="1", tokenizer="2")), config=dict(latent_dim=256))
        return [self.weights]
    def bend(self, draw):
        if draw.random() < 0.5: return b"w" + super().bend(draw)
        tree = restructured(self.about, draw)
        return b"c" + (as_json(tree) if draw.random() < 0.7 else bent(as_json(self.about), draw, b"{}"))
    def read(self, data):
        import torch

        from latent_summ.train.checkpoint import content_hash
        from latent_summ.use.share import read_export
        about, weights = (data[1:], self.weights) if data[:1] == b"c" else (as_json(self.about), data[1:])
        with contextlib.suppress(ValueError, RecursionError, TypeError):
            tree = json.loads(about)
            about = as_json(tree | dict(sha256=content_hash(dict(w=torch.arange(6.).view(2, 3)), json.dumps(tree, sort_keys=True))))
        (self.folder / "config.json").write_bytes(about)
        (self.folder / "model.safetensors").write_bytes(weights)
        read_export(self.folder)


class Latents(Target):
    def make(self):
        import torch

        from latent_summ.use.latents import write_latents
        made_by = dict(kind="document", encoder=dict(revision="1", tokenizer="2"), pooling="mean", shape="2 x 4", normalized=True)
        return [write_latents(self.folder / "a", torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)), made_by, ids).read_bytes() for ids in (None, ["a", "b", 3])]
    def bend(self, draw):
        if draw.random() < 0.6: return super().bend(draw)
        import torch
        from safetensors.torch import load, save

        from latent_summ.train.checkpoint import content_hash
        seed = draw.choice(self.seeds)
        tensors = load(seed)
        meta = json.loads(seed[8:8 + int.from_bytes(seed[:8], "little")])["__metadata__"]
        tree = restructured(json.loads(meta["latent_summ"]), draw) if draw.random() < 0.6 else json.loads(meta["latent_summ"])
        if draw.random() < 0.5: tensors["ids"] = torch.frombuffer(bytearray(bent(tensors["ids"].numpy().tobytes(), draw, b"[]") or b"0"), dtype=torch.uint8)
        if draw.random() < 0.3: tensors.pop(draw.choice(sorted(tensors)))
        if draw.random() < 0.2 and "values" in tensors: tensors["values"] = draw.choice((tensors["values"][:1], tensors["values"].float(), tensors["values"][..., :0]))
        tensors = dict(sorted(tensors.items()))
        text = json.dumps(tree)
        return save(tensors, dict(latent_summ=text, sha256=content_hash(tensors, text)))
    def read(self, data):
        from latent_summ.use.latents import read_latents
        path = self.folder / "b"
        path.write_bytes(data)
        read_latents(path)
        read_latents(path, dict(document=dict(kind="document"), summary=dict(kind="summary")))


class Events(Target):
    def make(self):
        import latent_summ.use.run_log  # noqa: F401  loaded before the clock runs
        self.records = [dict(time=1.0, event="run_start", config=dict(latent_dim=256), resumed=False, processes=1), dict(time=1.5, event="plan", stages=[dict(stage="a", steps=2)]),
                        dict(time=2.0, event="preprocess", source="pairs/train", rows=5, seconds=0.1),
                        dict(time=2.1, event="stage_start", stage="a", step=0, steps=2, epochs=1, rows=5, batch_size=4),
                        dict(time=3.0, event="step", stage="a", step=1, steps=2, epoch=0, lr=0.1, grad_norm=1.0, memory_mb=5, rows_per_s=1.0, tokens_per_s=0.0, loss=1.0),
                        dict(time=3.5, event="validation", stage="a", step=2, loss=0.5),
                        dict(time=4.0, event="stage_end", stage="a", seconds=2.0, loading_share=0.0, best_loss=0.5),
                        dict(time=5.0, event="run_end", seconds=4.0, ok=True, error="")]
        return [b"".join(as_json(r) + b"\n" for r in self.records)]
    def bend(self, draw):
        if draw.random() < 0.4: return super().bend(draw)
        tree = restructured(self.records, draw)
        return b"".join(as_json(r) + b"\n" for r in tree) if isinstance(tree, list) else as_json(tree)
    def read(self, data):
        from latent_summ.config import LatentSummError
        from latent_summ.train.events import read_events
        from latent_summ.use.runs import runs_rich, runs_table
        (self.folder / "events.jsonl").write_bytes(data)
        (self.folder / "config.json").write_text("{}")
        with contextlib.suppress(LatentSummError): read_events(self.folder / "events.jsonl")
        runs_rich(runs_table([self.folder]))


class EventsReport(Events):
    "The same events in a report of one's own run, with the picture's numbers."
    def read(self, data):
        from latent_summ.train.events import read_events
        from latent_summ.use.run_log import run_rows, run_seconds
        (self.folder / "events.jsonl").write_bytes(data)
        found = read_events(self.folder / "events.jsonl")
        run_seconds(found), run_rows(found)


class Predictions(Target):
    def make(self): return [b'{"id": 1, "prediction": "a"}\n{"id": "2", "summary": "b"}\n', '{"id": null, "text": "é"}'.encode()]
    def read(self, data):
        from latent_summ.use.predictions import read_predictions
        path = self.folder / "p.jsonl"
        path.write_bytes(data)
        read_predictions(path)


class CommandLine(Target):
    "Words for the command line, separated by line ends; what would train, evaluate or download only parses."
    def make(self):
        os.chdir(self.folder)
        from latent_summ.config import Config
        from latent_summ.ui import cli
        for name in set(cli.COMMANDS) - {"config", "runs", "completion", "summarize"}: cli.COMMANDS[name] = (cli.COMMANDS[name][0], lambda *_: None)
        self.names = [f"--{k.replace('_', '-')}" for k in vars(Config())]
        self.commands = [*cli.COMMANDS, "--help", "", "confg"]
        return [b"config\nshow\n--preset\nmini", b"runs", b"completion\nbash", b"train\n--batch-size\n4", b"summarize\n--run-dir\nx\nhello", b"evaluate\n--max-rows\n3"]
    def bend(self, draw):
        if draw.random() < 0.5: return super().bend(draw)
        values = ["1", "-1", "0.5", "true", "None", "", "nan", "1e9", "x", "--", "é", "[]", "mini", "a,b", "../x", "9" * 30]
        words = [draw.choice(self.commands)]
        for _ in range(draw.randrange(5)): words += draw.choice(([draw.choice(self.names)], [draw.choice(values)], [draw.choice(self.names), draw.choice(values)]))
        return "\n".join(words).encode()
    def read(self, data):
        from latent_summ.ui.cli import status_of
        words = [w.replace("\0", "") for w in data.decode(errors="replace").split("\n")]
        if "save" in words or "--traceback" in words or any(w.startswith(("/", "~", "--output", "--out")) for w in words): return
        out, empty = io.StringIO(), io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), mock.patch("sys.stdin", empty):
            try: status = status_of(words)
            except SystemExit as e: status = e.code
        if status not in (0, None, 1, 2, 130): raise AssertionError(f"status {status!r}")
        if "Traceback" in out.getvalue(): raise AssertionError("a traceback")


TARGETS = {t.__name__: t for t in (ConfigFile, Manifest, PartialManifest, Offsets, JsonlShardFile, ArrowShardFile, TrustedJsonl, TrustedArrow, Rows, SourceFile, Checkpoint, Export,
                                   Latents, Events, EventsReport, Predictions, CommandLine)}
SLOW = {"SourceFile": 40, "CommandLine": 20, "Events": 10, "TrustedJsonl": 4, "TrustedArrow": 4, "ArrowShardFile": 2}  # inputs of the others in the time of one of theirs


# --- one target in a process of its own -------------------------------------------------------------------------------

class Slow(BaseException): pass


def _slow(*_): raise Slow()


def one(target:Target, data:bytes) -> str: # "read", "refused", or what broke
    "Try one input."
    from latent_summ.config import LatentSummError
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try: target.read(data)
    except LatentSummError: return "refused"
    except Slow: return f"no answer within {SECONDS} s"
    except (Exception, RecursionError) as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        return f"{type(e).__name__}: {str(e)[:120]!r} at {Path(last.filename).name}:{last.lineno}"
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def _child(name:str, inputs:int, seed:int, kept:list, shared:mmap.mmap, answer:int):
    "All inputs of a target; the one being tried lies in shared memory, so that a crash can be laid to it."
    import torch
    torch.set_num_threads(1)
    sys.stderr = sys.stdout = open(os.devnull, "w", errors="backslashreplace")  # as Python opens stderr
    signal.signal(signal.SIGALRM, _slow)
    with tempfile.TemporaryDirectory() as folder:
        target, draw, counts, broken = TARGETS[name](Path(folder)), random.Random(f"{seed} {name}"), Counter(), {}
        for data in target.seeds: one(target, data)  # imports and first-time tables are not the input's fault
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        for i in range(len(kept) + inputs):
            data = (kept[i] if i < len(kept) else target.bend(draw))[:len(shared) - 8]
            shared[:8 + len(data)] = len(data).to_bytes(8, "little") + data
            found = one(target, data)
            if found.startswith("no answer"): found = one(target, data)  # slow twice is slow: once, it may have been the machine
            counts[found if found in ("read", "refused") else "broken"] += 1
            if found not in ("read", "refused"):
                kind = found.split(":")[0] + found.split(" at ")[-1]
                broken.setdefault(kind, (found, data.hex()))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with os.fdopen(answer, "w") as f: json.dump(dict(counts=counts, broken=list(broken.values()), peak_mb=peak), f)


def attack(name:str, inputs:int, seed:int) -> dict: # counts, broken [(what, input)], seconds
    "Try the kept inputs of a target, then `inputs` new ones, in a forked process."
    kept = [p.read_bytes() for p in sorted((CORPUS / name).glob("*"))]
    shared, (ours, its), began = mmap.mmap(-1, 2**22), os.pipe(), time.monotonic()
    pid = os.fork()
    if not pid:
        try:
            os.close(ours)
            _child(name, inputs, seed, kept, shared, its)
            os._exit(0)
        except BaseException: traceback.print_exc(file=sys.__stderr__); os._exit(3)
    os.close(its)
    with os.fdopen(ours) as f: text = f.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    last = shared[8:8 + int.from_bytes(shared[:8], "little")]
    out = json.loads(text) if status == 0 else dict(counts=dict(broken=1), broken=[[f"the process ended with status {status}", last.hex()]], peak_mb=None)
    return out | dict(kept=len(kept), seconds=round(time.monotonic() - began, 1))


def keep(name:str, data:bytes) -> Path:
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def shares(inputs:int, names:list) -> dict:
    "How many inputs each target gets, so that all take about the same time."
    weight = {n: 1 / SLOW.get(n, 1) for n in names}
    return {n: max(1, round(inputs * weight[n] / sum(weight.values()))) for n in names}


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--inputs", type=int, default=100_000)
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    ap.add_argument("--target", nargs="*", default=list(TARGETS))
    ap.add_argument("--out", type=Path)
    args = ap.parse_args()
    print(f"seed {args.seed}", flush=True)
    found, bad = {}, 0
    for name, n in shares(args.inputs, args.target).items():
        r = found[name] = attack(name, n, args.seed)
        read, refused = (r["counts"].get(k, 0) for k in ("read", "refused"))
        print(f"{name:16} {sum(r['counts'].values()):7,} inputs, {read:,} read, {refused:,} refused, {r['seconds']} s, {r['peak_mb']} MB", flush=True)
        for what, data in r["broken"]: bad += 1; print(f"    BROKEN {what}  kept as {keep(name, bytes.fromhex(data)).relative_to(HERE)}", flush=True)
    record = dict(command=f"python tests/fuzz.py --inputs {args.inputs} --seed {args.seed}", inputs=sum(sum(r["counts"].values()) for r in found.values()), broken=bad,
                  targets={n: {k: v for k, v in r.items() if k != "broken"} for n, r in found.items()}, python=platform.python_version())
    if args.out: args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{record['inputs']:,} inputs, {bad} kinds of break")
    return 1 if bad else 0


if __name__ == "__main__": sys.exit(main())
