"""Is this version slower than 0.1.0? The same commands with the code of both, process by process in turn, from a cold start.

    python benchmarks/versions.py            to benchmarks/results/versions.json; needs the repository's history, where 0.1.0 is
    python benchmarks/versions.py --full     more rounds

- help: `latent_summ --help`
- summarize: 400 built-in chats from a file, with the built-in model; today this also judges how far each summary can be trusted, which 0.1.0 could not
- texts: the same chats in Python, `Summarizer.summarize(texts)`: summaries alone, in both versions
- train: all four stages of `--preset mini` on 1,000 chats and as many texts, with caching
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import HERE, options, parse, ratio, run_parts, spread

from latent_summ.data.messenger import chats

OLD = "7032156" # the last commit of 0.1.0's layout
RUN = ["train", "--preset", "mini", "--device", "cpu", "--messenger-rows", "1000", "--no-use-tui", "--overwrite",
       *(word for part in ("middle", "adapter") for word in (f"--pretrain-{part}-max-samples", "1000", f"--pretrain-{part}-max-samples-wikitext", "1000"))]
SUMMARIZE = """
import json, sys
try: from latent_summ.use.inference import Summarizer
except ImportError: from latent_summ.inference import Summarizer
texts = [json.loads(line)["dialogue"] for line in open(sys.argv[1])]
summaries = Summarizer.from_pretrained("mini").summarize(texts)
assert len(summaries) == len(texts) and all(isinstance(s, str) for s in summaries)
"""


def spent(tree:Path, words:list) -> tuple: # (seconds on the clock, seconds of processor time)
    "Run Python with these words and the code in `tree`."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | dict(PYTHONPATH=str(tree), HF_HUB_OFFLINE="1")
    p = subprocess.run([sys.executable, *words], cwd=tree, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if p.returncode: sys.exit(f"python {' '.join(words)} ended with status {p.returncode} in {tree}:\n{p.stderr[-2000:]}")
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compared(opts, make_words, rounds:int) -> dict:
    "Both versions once in every round, after one round that does not count; `make_words(folder)` gives the command."
    with tempfile.TemporaryDirectory() as scratch:
        trees = dict(old=Path(scratch) / "old", new=HERE.parent)
        subprocess.run(["git", "worktree", "add", "--detach", str(trees["old"]), OLD], cwd=HERE, check=True, capture_output=True)
        try:
            runs = {name: [] for name in trees}
            for n in range(rounds + 1):
                for name in sorted(trees, reverse=n % 2 == 0):
                    folder = Path(scratch) / f"{name}{n}"
                    folder.mkdir()
                    found = spent(trees[name], make_words(folder))
                    if n: runs[name].append(found)
        finally: subprocess.run(["git", "worktree", "remove", "--force", str(trees["old"])], cwd=HERE, check=True)
    seconds = {name: dict(clock=spread([r[0] for r in found]), processor=spread([r[1] for r in found])) for name, found in runs.items()}
    return dict(seconds=seconds, new_by_old=dict(clock=ratio(runs["new"], runs["old"]), processor=ratio(runs["new"], runs["old"], clock=1)), old_commit=OLD)


def write_chats(folder:Path) -> Path:
    "400 held-out chats in a file."
    rows = chats(20 if "--toy" in sys.argv else 400, "test")
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(dict(id=r["id"], dialogue=r["dialogue"])) + "\n" for r in rows))
    return path


COMMAND = ["-m", "latent_summ"]


def helped(opts): return compared(opts, lambda folder: [*COMMAND, "--help"], 15 if opts.full else 7)


def summarized(opts):
    def words(folder): return [*COMMAND, "summarize", "--model", "mini", "--device", "cpu", "--input", str(write_chats(folder)), "--output", str(folder / "out.jsonl")]
    return compared(opts, words, 7 if opts.full else 4)


def summaries_alone(opts): return compared(opts, lambda folder: ["-c", SUMMARIZE, str(write_chats(folder))], 7 if opts.full else 4)


def trained(opts):
    rows = ["--max-train-samples", "64"] if opts.toy else []
    def words(folder): return [*COMMAND, *RUN, *rows, "--run-dir", str(folder / "run"), "--preprocess-cache-dir", str(folder / "cache")]
    return compared(opts, words, 3 if opts.full else 2)


PARTS = dict(help=helped, summarize=summarized, texts=summaries_alone, train=trained)

if __name__ == "__main__": run_parts(__file__, parse(options(__doc__, PARTS)), PARTS)
