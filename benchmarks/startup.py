"""How long the command takes to answer, beside `import torch`: each round starts every process once, in turn.

    python benchmarks/startup.py [--rounds 15] [--output benchmarks/results/startup.json]
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALLS = {
    "python -c pass": ["-c", "pass"],
    "import latent_summ.config": ["-c", "import latent_summ.config"],
    "latent_summ --help": ["-m", "latent_summ", "--help"],
    "latent_summ train --help": ["-m", "latent_summ", "train", "--help"],
    "latent_summ config diff --preset mini": ["-m", "latent_summ", "config", "diff", "--preset", "mini"],
    "import torch": ["-c", "import torch"],
    "import torch, transformers": ["-c", "import torch, transformers; transformers.AutoModel"],
}


def seconds(words:list) -> float:
    "Wall time of one Python process."
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def git(*words) -> str: return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def quartiles(values:list) -> list: return [round(q, 3) for q in statistics.quantiles(values, n=4)[::2]]


def measure(rounds:int) -> dict:
    for words in CALLS.values(): seconds(words)  # once, so that files are in the page cache and .pyc files are written
    times = {name: [] for name in CALLS}
    for _ in range(rounds):
        for name, words in CALLS.items(): times[name].append(seconds(words))
    base = times["import torch"]
    return {name: dict(median_s=round(statistics.median(t), 3), quartiles_s=quartiles(t), of_import_torch=round(statistics.median(a / b for a, b in zip(t, base)), 3),
                       of_import_torch_quartiles=quartiles([a / b for a, b in zip(t, base)])) for name, t in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/startup.json")
    args = parser.parse_args()
    results = measure(args.rounds)
    report = dict(what="wall seconds of one process; of_import_torch: median of the ratios within each round", rounds=args.rounds, results=results,
                  machine=dict(system=f"{platform.system()} {platform.machine()}", cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                               load_average=round(os.getloadavg()[0], 2)),
                  versions=dict(python=platform.python_version()) | {p: version(p) for p in ("torch", "transformers", "tyro", "rich")},
                  commit=git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else ""), date=time.strftime("%Y-%m-%d"))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=2) + "\n")
    for name, r in results.items(): print(f"{name:<40} {r['median_s']:.2f} s   {r['of_import_torch']:.2f} of import torch")
    print(f"In {args.output}")


if __name__ == "__main__": main()
