"""How time and memory grow: with rows (caching, opening and reading a cache, each stage) and with the length of a text.

    python benchmarks/growth.py             to benchmarks/results/growth.json: up to 16,000 rows (stages 8,000, opening a cache 100,000)
    python benchmarks/growth.py --full      up to 1,000,000 rows, about 45 minutes

Every size runs in a process of its own, for its peak memory. `exponent` is the slope of log time over log rows between the two largest sizes, start-up
left out: 1 is linear. The models are small, as the rows matter here: the first layer of the small encoder, and of the small decoder.

- cache: short rows, embedded into a cache
- open: a cache of synthetic vectors: opened with the SHA-256 of all its bytes (`open_ms`), opened by its manifest alone and one row read (`index_ms`),
  a shuffled batch of 32 read, one row read at random; jsonl and arrow. A stage's reading in random order keeps
  `read_own_mb` of its own and `read_file_mb` of mapped pages, which the system takes back when it needs memory
- stages: one epoch of each of the four stages on synthetic vectors of 8 x 32 and targets of 12 words, read from a cache on disk; the most memory of its own
  (`own_mb`) and of mapped pages (`file_mb`, the libraries and the cache's files), which the system takes back when it needs memory
- length: encoder time per token for texts of 32 to 512 tokens, batches of the same number of tokens
"""
import json
import re
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _common import MadeRows, child, modernbert, options, parse, peak_gb, run_parts, spread, timed

from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.encode.cache import Cache
from latent_summ.encode.cache_writer import CacheWriter
from latent_summ.config import Config
from latent_summ.encode.embed import build_cache
from latent_summ.model.model import LatentSummarizer
from latent_summ.runtime import autocast
from latent_summ.plan import stage_table
from latent_summ.train.objectives import stage_objective
from latent_summ.train.rows import with_latents, CachedRows
from latent_summ.train.trainer import Job, Trainer


def peak_mb() -> int: return round(peak_gb() * 1e3)


# --- one size, in its own process -------------------------------------------------------------------------------------

def one_cache(n:int, folder:str) -> dict:
    cfg = Config.preset("mini").override(device="cpu", preprocess_cache_dir=folder)
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    encoder.model.layers = encoder.model.layers[:1]
    before, rows = peak_mb(), MadeRows(n, lambda i: f"Row {i} says: see you at {i % 12} o'clock.")
    return dict(seconds=timed(lambda: build_cache(cfg, encoder, decoder, "texts", "short", rows=rows))[0], loaded_mb=before, peak_mb=peak_mb())


def write_synthetic(n:int, kind:str, folder:str, dim:int=64) -> dict:
    "A cache of `n` rows: a vector of 64, eight target ids."
    g = np.random.default_rng(0)
    def write():
        with CacheWriter(folder, {"encoder": "none"}, format=kind) as w:
            for i in range(0, n, 10_000):
                vectors, size = g.standard_normal((min(10_000, n - i), 1, dim), dtype=np.float32), min(10_000, n - i)
                w.add([{"id": str(i + j), "embedding": vectors[j], "target_ids": [7] * 8} for j in range(size)])
            w.finish()
    return dict(seconds=timed(write)[0], peak_mb=peak_mb())


def one_open(n:int, kind:str, folder:str) -> dict:
    "Times in milliseconds."
    before, opened = peak_mb(), [timed(lambda: Cache.open(folder, {"encoder": "none"})) for _ in range(9)]
    indexed = [timed(lambda: Cache.open(folder, {"encoder": "none"}, verify=False)[n // 2])[0] for _ in range(9)]
    cache = opened[-1][2]
    order = np.random.default_rng(1).integers(0, n, (20, 32))
    timed(lambda: cache.take(order[0].tolist(), ("embedding", "target_ids")))
    batches = [timed(lambda o=o: cache.take(o.tolist(), ("embedding", "target_ids")))[0] for o in order[1:]]
    single = [timed(lambda i=i: cache[int(i)])[0] for i in order[:, 0]]
    median_ms = lambda times: 1e3 * float(np.median(times))
    out = dict(open_ms=median_ms([t[0] for t in opened]), index_ms=median_ms(indexed), batch_ms=median_ms(batches), row_ms=median_ms(single), loaded_mb=before, peak_mb=peak_mb())
    return out | read_memory(cache, n)


def resident() -> tuple: # MB of its own, MB of mapped files
    "What this process has in memory now."
    status = Path("/proc/self/status")
    kinds = dict(re.findall(r"Rss(Anon|File):\s+(\d+)", status.read_text())) if status.exists() else {}
    return tuple(int(kinds.get(kind, 0)) / 1024 for kind in ("Anon", "File"))


def read_memory(cache:Cache, n:int) -> dict: # MB
    "What a stage's reading keeps in memory: batches of 512 in random order, at most 100,000 rows, from a cache that nothing was read of yet."
    fresh, start = Cache(cache.folder, cache.manifest), resident()
    rows, order = CachedRows([(fresh, np.arange(n))], dict(inputs="embedding", labels="target_ids")), np.random.default_rng(2).permutation(n)[:100_000]
    for i in range(0, len(order), BATCH): rows[order[i:i + BATCH].tolist()]
    return dict(zip(("read_own_mb", "read_file_mb"), (b - a for a, b in zip(start, resident()))))


DIM, BATCH = 32, 512 # numbers in the stages' vectors and latents; rows in a step


def write_rows(n:int, folder:str) -> dict:
    "A cache of `n` pairs: eight vectors for the dialogue and for the summary, twelve target ids."
    g, eos = np.random.default_rng(0), load_decoder(Config.preset("mini")).eos_id
    def write():
        with CacheWriter(folder, {"encoder": "none"}, format="arrow") as w:
            for i in range(0, n, 10_000):
                x, y = g.standard_normal((2, min(10_000, n - i), 8, DIM), dtype=np.float32)
                w.add([{"id": str(i + j), "embedding": a, "summary_embedding": b, "target_ids": [5 + (i + j) % 3000] * 11 + [eos]} for j, (a, b) in enumerate(zip(x, y))])
            w.finish()
    return dict(seconds=timed(write)[0], peak_mb=peak_mb())


def one_stage(n:int, name:str, folder:str) -> dict:
    "One epoch, its rows read from the cache on disk."
    cfg = Config.preset("mini").override(device="cpu", use_stop_latent=False, embedding_normalizer="none", modernbert_hidden_dim=DIM, latent_dim=DIM, prefix_len=8,
                                         middle_transformer_layers=1, middle_num_heads=2, adapter_num_heads=2, adapter_flat_rank=16)
    decoder = load_decoder(cfg)
    decoder.model.model.layers = decoder.model.model.layers[:1]
    model = LatentSummarizer(cfg, decoder.embedding_rms)
    stage, = [s for s in stage_table(cfg) if s.name == name]
    columns = {"inputs": "embedding"} | ({"labels": "target_ids"} if "text" in stage.wants else {})
    if stage.reads == "pairs" and "latents" in stage.wants: columns["outputs"] = "summary_embedding"
    rows = CachedRows([(Cache.open(folder, {"encoder": "none"}, verify=False), list(range(n)))], columns)
    before, seen = peak_mb(), []
    def loss(batch, progress):
        seen.append(resident())
        return stage_objective(stage)(model, decoder, cfg, with_latents(batch, model.document_latents), progress)
    trainer = Trainer(Job(name, model, stage.trains, rows, loss, 1, BATCH), cfg, torch.device("cpu"))
    seconds = timed(trainer.run)[0]
    own, file = (max(kind) for kind in zip(*seen))
    return dict(seconds=seconds, loaded_mb=before, peak_mb=peak_mb(), own_mb=own, file_mb=file)


# --- sizes side by side -----------------------------------------------------------------------------------------------

def grown(sizes:list, runs:list, *keys) -> dict:
    "Figures by size, the exponent of each of `keys`, and the memory that the largest size takes more than the one before."
    slope = lambda key: float(np.log(runs[-1][key] / runs[-2][key]) / np.log(sizes[-1] / sizes[-2]))
    return dict(rows=sizes, **{k: [round(r[k], 3) for r in runs] for k in runs[0]}, **{f"exponent_{k}": round(slope(k), 3) for k in keys},
                growth_mb=runs[-1]["peak_mb"] - runs[-2]["peak_mb"])


def bench_cache(opts) -> dict:
    sizes = opts.rows or ([300, 600] if opts.toy else [1000, 10_000, 100_000, 1_000_000] if opts.full else [1000, 4000, 16_000])
    def run(n):
        with tempfile.TemporaryDirectory() as folder: return child(__file__, "--one", "cache", n, folder, "--threads", opts.threads)
    return grown(sizes, [run(n) for n in sizes], "seconds")


def bench_open(opts) -> dict:
    sizes, out = opts.rows or ([1000, 4000] if opts.toy else [1000, 10_000, 100_000] + [1_000_000] * opts.full), {}
    for kind in ("jsonl", "arrow"):
        runs = []
        for n in sizes:
            with tempfile.TemporaryDirectory() as folder:
                wrote = child(__file__, "--one", "write", n, folder, kind)
                runs.append(child(__file__, "--one", "open", n, folder, kind) | dict(write_s=wrote["seconds"], write_peak_mb=wrote["peak_mb"]))
        out[kind] = grown(sizes, runs, "open_ms", "index_ms", "batch_ms", "row_ms", "write_s")
    return out


def bench_stages(opts) -> dict:
    sizes = opts.rows or ([128, 256] if opts.toy else [1000, 10_000, 100_000, 1_000_000] if opts.full else [1000, 8000])
    names = [s.name for s in stage_table(Config.preset("mini"))]
    runs = {name: [] for name in names}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            child(__file__, "--one", "rows", n, folder)
            for name in names: runs[name].append(child(__file__, "--one", "stage", n, name, folder, "--threads", opts.threads))
    return {name: grown(sizes, some, "seconds") for name, some in runs.items()}


def bench_length(opts) -> dict:
    """Tokens/s of the full-size encoder at lengths of 32 to 512, 1,024 tokens in a batch."""
    model, cfg = modernbert(opts.toy).to(opts.device), Config(device=opts.device)
    lengths, repeats = [32, 64, 128, 256, 512], 5 if opts.full else 3
    def run(n):
        ids = torch.randint(5, 3000, (1024 // n, n), device=opts.device)
        def forward():
            with torch.inference_mode(), autocast(cfg, torch.device(opts.device)): return model(input_ids=ids)
        forward()
        return spread([1024 / timed(forward)[0] for _ in range(repeats)])
    rates = [run(n) for n in lengths]
    return dict(tokens=lengths, batch_tokens=1024, tokens_per_s=[r["median"] for r in rates], tokens_per_s_spread=rates)


ONE = dict(cache=one_cache, rows=write_rows, stage=one_stage, write=lambda n, folder, kind: write_synthetic(n, kind, folder),
           open=lambda n, folder, kind: one_open(n, kind, folder))
PARTS = dict(cache=bench_cache, open=bench_open, stages=bench_stages, length=bench_length)


def main():
    p = options(__doc__, PARTS)
    p.add_argument("--rows", type=int, nargs="+", help="sizes, at least two")
    p.add_argument("--one", nargs="+", help="one size alone: what the other processes run")
    opts = parse(p)
    if opts.one: print(json.dumps(partial(ONE[opts.one[0]], int(opts.one[1]))(*opts.one[2:])))
    else: run_parts(__file__, opts, PARTS)


if __name__ == "__main__": main()
