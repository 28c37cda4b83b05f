"""What the scripts in this folder share: turns, figures, the machine and its limits, models of full size with random weights, and results files."""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
import transformers

from latent_summ.encode.backbones import MINI, Decoder
from latent_summ.runtime import has_bf16, peak_memory_mb, write_json

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("torch", "transformers", "numpy", "tokenizers", "sentence-transformers", "datasets", "accelerate")


# --- turns and figures ------------------------------------------------------------------------------------------------

def spread(values) -> dict:
    "Median, least, most, and how many."
    v = np.asarray(values, float)
    return dict(median=round(float(np.median(v)), 4), min=round(float(v.min()), 4), max=round(float(v.max()), 4), n=len(v))


def sync():
    "Wait for what a GPU still has to do, so that a clock may be read."
    if torch.cuda.is_available(): torch.cuda.synchronize()


def timed(f:Callable) -> tuple: # (seconds on the clock, seconds of processor time, what f returned)
    "Run `f()` once."
    sync()
    wall, cpu = time.perf_counter(), time.process_time()
    out = f()
    sync()
    return time.perf_counter() - wall, time.process_time() - cpu, out


def turns(
    ways:dict, # name -> function without arguments
    repeats:int,
    warm_up:bool=True, # call each once before
) -> dict: # name -> list of `timed`'s answers
    "Each way once in every round, the order turned round each time: all see the same neighbours on a shared machine."
    runs = {name: [] for name in ways}
    for f in ways.values() if warm_up else (): f()
    for n in range(repeats):
        for name in list(ways) if n % 2 else reversed(list(ways)): runs[name].append(timed(ways[name]))
    return runs


def ratio(theirs:list, ours:list, clock:int=0) -> dict:
    "How many times as long theirs took as ours, pair by pair (`clock` 0: by the clock, 1: in processor time)."
    return spread([a[clock] / b[clock] for a, b in zip(theirs, ours)])


def peak_gb(device="cpu") -> float: # of 10^9 bytes
    "The most memory this process has used: of the GPU where there is one, else of the machine."
    if torch.device(device).type == "cuda": return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")  # what getrusage says on Linux begins with what the parent process had
    own = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    return own[0] * 1024 / 1e9 if own else peak_memory_mb() / 1e3


def child(
    script, # `__file__` of the caller
    *words, # its arguments
) -> dict:
    "Run a script in a process of its own and take the JSON on its last line: a cold start, and a peak memory of its own."
    p = subprocess.run([sys.executable, str(script), *map(str, words)], stdout=subprocess.PIPE, text=True)
    if p.returncode: sys.exit(f"{Path(script).name} {' '.join(map(str, words))} ended with status {p.returncode}.")
    return json.loads(p.stdout.splitlines()[-1])


# --- the machine and its limits ---------------------------------------------------------------------------------------

def _cpu() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor())


def _version(name:str) -> str:
    try: return version(name)
    except PackageNotFoundError: return "not installed"


def commit() -> str:
    "The commit that was measured; `-dirty` where code of the package or of this folder differs from it."
    git = lambda *words: subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", "../latent_summ", "*.py") else "")


def machine(device="cpu") -> dict:
    "What it was measured on: kind and number of processors, versions, commit, day, and how busy it was before."
    gpu = dict(gpu=torch.cuda.get_device_name()) if torch.device(device).type == "cuda" else {}
    return dict(cpu=_cpu(), cores=os.cpu_count(), threads=torch.get_num_threads(), bf16=torch.cpu._is_avx512_bf16_supported(), **gpu,
                system=f"{platform.system()} {platform.machine()}", versions=dict(python=platform.python_version()) | {p: _version(p) for p in PACKAGES},
                commit=commit(), date=time.strftime("%Y-%m-%d"), load_before=round(os.getloadavg()[0], 1))


def best_rate(f:Callable, amount:float, tries:int=8) -> float:
    "`amount` per second of the fastest of several calls; a limit is what the machine can do when nobody disturbs."
    return amount / min(timed(f)[0] for _ in range(tries + 1))


def matmul_rate(dtype, device="cpu") -> float: # FLOP/s
    "Of products as the encoder has them, and of a large square one."
    n, best = 8192 if torch.device(device).type == "cuda" else 2048, 0.0
    for m, k, o in ((2048, 768, 2304), (2048, 1152, 768), (n, n, n)):
        product = partial(torch.nn.functional.linear, torch.randn(m, k, dtype=dtype, device=device), torch.randn(o, k, dtype=dtype, device=device))
        with torch.inference_mode(): best = max(best, best_rate(product, 2 * m * k * o))
    return best


def memory_rate(device="cpu") -> float: # bytes/s
    "Of reading: a sum over 256 MB, far more than fits into a cache."
    x = torch.ones(2**26, device=device)
    return best_rate(x.sum, x.nbytes)


def disk_rate(folder=None) -> float: # bytes/s
    "Of reading a file that is not in the page cache (where the system can be asked to drop it)."
    with tempfile.NamedTemporaryFile(dir=folder) as f:
        f.write(os.urandom(2**26))
        f.flush()
        os.fsync(f.fileno())
        def read():
            if hasattr(os, "posix_fadvise"): os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            f.seek(0)
            while f.read(2**22): pass
        return best_rate(read, 2**26, 2)


def limits(device="cpu") -> dict:
    "What no program could beat here: arithmetic, memory, disk. Where the hardware has no bf16 products, the rate of bf16 is that of fp32."
    rate = lambda x: round(x / 1e9, 2)
    fp32 = rate(matmul_rate(torch.float32, device))
    bf16 = rate(matmul_rate(torch.bfloat16, device)) if has_bf16(torch.device(device)) else fp32
    return dict(matmul_fp32_gflops=fp32, matmul_bf16_gflops=bf16,
                memory_read_gb_per_s=rate(memory_rate(device)), disk_read_gb_per_s=rate(disk_rate()))


# --- models of full size ----------------------------------------------------------------------------------------------

GEMMA = dict(vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1, head_dim=256, sliding_window=512)
TOY = dict(vocab_size=4000, hidden_size=640, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=32, sliding_window=512)


def gemma(toy:bool=False) -> Decoder:
    "A decoder of Gemma-3-270m's shape with random weights: its speed is that of the real one. (`toy`: as wide, far smaller, to try a script.)"
    torch.manual_seed(0)
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**(TOY if toy else GEMMA), attn_implementation="sdpa")).eval().requires_grad_(False)
    return Decoder(model, transformers.AutoTokenizer.from_pretrained(MINI / "decoder"))


def modernbert(toy:bool=False, attention:str="sdpa"):
    "An encoder of ModernBERT-base's shape with random weights (`toy`: as wide, two layers)."
    torch.manual_seed(0)
    few = dict(num_hidden_layers=2, intermediate_size=64) if toy else {}
    return transformers.ModernBertModel(transformers.ModernBertConfig(pad_token_id=0, attn_implementation=attention, **few)).eval().requires_grad_(False)


class MadeRows:
    "Texts in the place of a source's `Rows`, each made when it is asked for."
    def __init__(self, n:int, text:Callable): self.n, self.text, self.report = n, text, dict(kept=n, identity=f"made {n}", dropped={})
    def __len__(self): return self.n
    def __getitem__(self, at): return [self[i] for i in range(*at.indices(self.n))] if isinstance(at, slice) else {"id": str(at), "text": self.text(at)}


# --- options and results ----------------------------------------------------------------------------------------------

def options(
    doc:str, # of the script
    parts, # names of its parts
    quick:tuple=(), # those that run without --full (default: all)
) -> argparse.ArgumentParser:
    "The options that all scripts have; a script adds its own."
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", nargs="+", choices=list(parts), help="only these; what the file holds of the others stays")
    p.set_defaults(quick=list(quick or parts), all=list(parts))
    p.add_argument("--full", action="store_true", help="all sizes and more repeats (without it: what `make bench` runs)")
    p.add_argument("--toy", action="store_true", help="tiny models, to try the script; nothing is written")
    p.add_argument("--device", default="cpu", help="cpu or cuda; results of another device go to a file of their own")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--output", type=Path, help="file (default: results/<script>.json, results/<script>-cuda.json)")
    return p


def parse(p:argparse.ArgumentParser) -> argparse.Namespace:
    "The options given; threads are set."
    opts = p.parse_args()
    def words(key, value):
        shown = "" if value is True else " ".join(map(str, value)) if isinstance(value, list) else str(value)
        return f"--{key.replace('_', '-')} {shown}".strip()
    opts.words = " ".join(words(k, v) for k, v in vars(opts).items() if v not in (p.get_default(k), False) and k not in ("parts", "output"))
    opts.parts = opts.parts or (opts.all if opts.full else opts.quick)
    torch.set_num_threads(opts.threads)
    return opts


def run_parts(
    script, # `__file__` of the caller
    opts:argparse.Namespace,
    parts:dict, # name -> function of `opts` that returns its figures
):
    "Run the chosen parts one after the other; each goes into the results file as soon as it is there."
    name = Path(script).stem
    path = opts.output or RESULTS / f"{name}{'' if opts.device == 'cpu' else '-' + opts.device}.json"
    opts.limits = limits(opts.device)
    for part in opts.parts:
        print(f"== {name}: {part}", flush=True)
        command = f"python benchmarks/{name}.py --parts {part} {opts.words}".strip()
        out = dict(command=command, machine=machine(opts.device), limits=opts.limits)
        start = time.perf_counter()
        out |= parts[part](opts) | dict(took_s=round(time.perf_counter() - start, 1))
        print(json.dumps(out, indent=1), flush=True)
        if opts.toy: continue
        write_json(path, (json.loads(path.read_text()) if path.exists() else {}) | {part: out})
        print(path.name, flush=True)
