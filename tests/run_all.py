"""Run every notebook and every test file, each in a process of its own, and count truthfully.

    python tests/run_all.py [--jobs 2] [--timeout 600] [--flags "slow cuda"] [--fresh] [PATH ...]

The processes are forked from one that has imported torch already (tests/zygote.py), on Linux; with --fresh each is a new Python.
One line per notebook or test file; the last line is `N passed, N failed` (and `, N skipped` when there are any).
A notebook is one test, a test file counts as many as it holds. The exit status is 0 only if something passed and nothing failed.
"""
import argparse
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import zygote
from zygote import Fresh

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SKIP_CELL = re.compile(r"^\s*#\s*\|\s*(slow|cuda|eval:\s*false)\s*$", re.M)
SKIP_NOTEBOOK = re.compile(r"^\s*(?:-\s*)?skip_exec:\s*true\s*$", re.M | re.I)
TAIL_LINES = 60

# Those that take 15 seconds and more, longest first: the others fill the gaps that these leave at the end.
LONGEST = """tests/promises tests/test_training.py tests/test_inference.py tests/test_hub.py tests/test_demo.py tests/test_world.py
    tests/test_cli.py nbs/tutorials/04_training_run.ipynb tests/test_experiments.py tests/test_zygote.py tests/test_scale.py
    nbs/use/06_ladder.ipynb nbs/ui/02_dashboard.ipynb nbs/ui/02_explorer.ipynb tests/test_teach.py tests/test_cache.py tests/test_families.py tests/test_tui.py
    nbs/use/14_sweep.ipynb nbs/use/04_inference.ipynb tests/test_effects.py nbs/encode/06_embed.ipynb nbs/train/10_stages.ipynb
    tests/test_repository.py tests/test_widgets.py tests/test_predictions.py nbs/tutorials/01_first_run.ipynb nbs/mini/make_mini.ipynb
    nbs/model/03_adapter.ipynb nbs/use/11_bits.ipynb nbs/tutorials/06_scaling_out.ipynb nbs/ui/05_doctor.ipynb tests/test_fuzz.py""".split()

running: set[Fresh | zygote.Process] = set()
say_lock = threading.Lock()
stopping = threading.Event()


@dataclass
class Result:
    path: Path
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    processor: float = 0.0  # seconds of processor time
    note: str = ""
    output: str = ""


def find(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    "The notebooks and the test files under `paths`; folders that start with `_` or `.` are left out, as nbdev does."
    def visible(p, base): return not any(part[0] in "._" for part in p.relative_to(base).parts)
    notebooks, tests = [], []
    for path in paths:
        if not path.exists(): sys.exit(f"{path} does not exist.")
        base, found = (path, sorted(path.rglob("*"))) if path.is_dir() else (path.parent, [path])
        notebooks += [p for p in found if p.suffix == ".ipynb" and visible(p, base)]
        whole = sorted(p.parent for p in found if p.name == "conftest.py" and p.parent != path)  # a folder with a conftest of its own runs as one
        tests += whole + [p for p in found if re.fullmatch(r"test_.*\.py|.*_test\.py", p.name) and visible(p, base) and p.parent not in whole]
    return notebooks, tests


def longest_first(paths: list[Path]) -> list[Path]:
    "Those of `LONGEST`, then the other tests, then the other notebooks."
    first = [ROOT / name for name in LONGEST]
    return sorted(paths, key=lambda p: (first.index(p) if p in first else len(first), p.suffix == ".ipynb"))


def environment(scratch: Path, flags: str) -> dict[str, str]:
    "One thread each, offline, with an empty model cache: what passes here passes on a machine that has never seen a hub."
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(scratch)}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    env["PATH"] = os.pathsep.join([str(BIN), env.get("PATH", "")])
    env["HF_HUB_OFFLINE"] = "1"
    if not flags: env["HF_HOME"] = str(scratch / "hf-home")
    return env


@dataclass
class Ended:
    status: int | None  # None: it ran out of time
    output: str  # everything it said
    seconds: float = 0.0  # of processor time


def run(words: list[str], env: dict[str, str], timeout: float, start=Fresh) -> Ended:
    "Run `python WORDS`."
    if stopping.is_set(): return Ended(130, "interrupted")
    with tempfile.TemporaryFile(dir=env["TMPDIR"]) as out:
        p = start(words, env, out.fileno())
        running.add(p)
        try: status = p.wait(timeout)
        except subprocess.TimeoutExpired: status = None
        finally:
            p.kill()
            p.wait()
            running.discard(p)
        out.seek(0)
        return Ended(status, out.read().decode("utf-8", "replace"), p.seconds)


def cells_to_run(path: Path, flags: str) -> int | None:
    "How many cells nbdev_test would run in this notebook; None if the notebook asks to be left out."
    cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    if any(kind != "code" and SKIP_NOTEBOOK.search(text) for kind, text in cells[:2]): return None
    wanted = set(flags.split())
    def skipped(text): return any(m not in wanted for m in SKIP_CELL.findall(text))
    return sum(kind == "code" and bool(text.strip()) and not skipped(text) for kind, text in cells)


def run_notebook(path: Path, env: dict[str, str], timeout: float, flags: str, start=Fresh) -> Result:
    "One notebook is one test. nbdev_test exits 0 on a path that matches nothing, so its `Success.` is asked for as well."
    try: n = cells_to_run(path, flags)
    except (ValueError, KeyError, TypeError) as e: return Result(path, failed=1, note=f"not a notebook: {e}")
    if n is None: return Result(path, skipped=1, note="skip_exec: true")
    if n == 0: return Result(path, skipped=1, note="no cell to run")
    words = [str(BIN / "nbdev_test"), "--path", str(path), "--n_workers", "0", *(["--flags", flags] if flags else [])]
    ended = run(words, env, timeout, start)
    status = ended.status
    if status == 0 and re.search(r"^Success\.$", ended.output, re.M): return Result(path, passed=1, processor=ended.seconds)
    if status is None: note = f"still running after {timeout:.0f} s"
    elif status == 0: note = "ended without the `Success.` of nbdev_test"
    else: note = f"exit status {status}"
    return Result(path, failed=1, note=note, output=ended.output, processor=ended.seconds)


def count_junit(report: Path) -> tuple[int, int, int]:
    "passed, failed, skipped in a junit file; a test that passed and then failed in its teardown has failed."
    failed, skipped, seen = set(), set(), set()
    for case in ET.parse(report).getroot().iter("testcase"):
        name = case.get("classname"), case.get("name")
        seen.add(name)
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}: failed.add(name)
        elif "skipped" in kinds: skipped.add(name)
    skipped -= failed
    return len(seen - failed - skipped), len(failed), len(skipped)


def run_tests(path: Path, env: dict[str, str], timeout: float, scratch: Path, start=Fresh) -> Result:
    "One test file with pytest, counted from its junit file; a crash, a collection error or an empty file is a failure."
    report = scratch / ("-".join(path.relative_to(ROOT).with_suffix(".xml").parts) if path.is_relative_to(ROOT) else f"{path.stem}.xml")
    unused = [word for name in ("cacheprovider", "anyio", "typeguard", "platformdirs") for word in ("-p", f"no:{name}")]  # half a second to import
    quiet = ["-q", *unused, "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that the zygote imported
    ended = run(["-m", "pytest", *quiet, "--tb=short", f"--junitxml={report}", str(path)], env, timeout, start)
    status = ended.status
    r = Result(path, output=ended.output, processor=ended.seconds)
    try: r.passed, r.failed, r.skipped = count_junit(report)
    except (OSError, ET.ParseError): r.note = "pytest wrote no report"
    if status is None: r.note = f"still running after {timeout:.0f} s"
    elif status == 5: r.note = "no tests in this file"
    elif status not in (0, 1): r.note = f"pytest ended with status {status}"
    if (r.note or status) and not r.failed: r.failed = 1
    return r


def tell(r: Result):
    "One line, and the end of the output where something failed, indented so that nothing in it reads like a count of ours."
    try: name = r.path.relative_to(ROOT)
    except ValueError: name = r.path
    mark = "FAIL" if r.failed else "ok" if r.passed else "skip"
    counts = f"{r.passed} passed, {r.failed} failed" + (f", {r.skipped} skipped" if r.skipped else "") if r.path.suffix == ".py" else ""
    with say_lock:
        print(f"{mark:4} {r.seconds:6.1f} s {r.processor:6.1f} s  {name}  {counts}{'  ' if counts and r.note else ''}{r.note}".rstrip())
        for line in r.output.rstrip().splitlines()[-TAIL_LINES:] if r.failed else []: print(f"    | {line}")
        sys.stdout.flush()


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("paths", nargs="*", type=Path, help="notebooks, test files or folders (default: nbs and tests)")
    ap.add_argument("--jobs", type=int, default=2, help="how many at a time, one thread each")
    ap.add_argument("--timeout", type=float, default=600, help="seconds a notebook may take; a test file gets twice that")
    ap.add_argument("--fresh", action="store_true", help="start each in a new Python instead of forking one that has imported torch")
    ap.add_argument("--flags", default="", help='cells to run that are skipped otherwise, for instance "slow cuda"')
    args = ap.parse_args()
    start = time.monotonic()
    notebooks, tests = find([p.resolve() for p in args.paths] or [ROOT / "nbs", ROOT / "tests"])

    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latent_summ-test-")))
        env = environment(scratch, args.flags)
        launch = Fresh
        if zygote.is_possible() and not args.fresh:
            server = stack.enter_context(zygote.Zygote(env))
            env[zygote.ADDRESS] = server.address
            launch = server.start

        def job(path):
            t = time.monotonic()
            try:
                if path.suffix == ".ipynb": r = run_notebook(path, env, args.timeout, args.flags, launch)
                else: r = run_tests(path, env, 2 * args.timeout, scratch, launch)
            except Exception as e: r = Result(path, failed=1, note=f"{type(e).__name__}: {e}")
            r.seconds = time.monotonic() - t
            if not stopping.is_set(): tell(r)
            return r

        with ThreadPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(job, p) for p in longest_first(tests + notebooks)]
            try: results = [f.result() for f in futures]
            except KeyboardInterrupt:
                stopping.set()
                for p in list(running): p.kill()
                pool.shutdown(cancel_futures=True)
                print("interrupted")
                return 130

    passed, failed, skipped = (sum(getattr(r, k) for r in results) for k in ("passed", "failed", "skipped"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = f"{time.monotonic() - start:.0f} s ({used.ru_utime + used.ru_stime:.0f} s of processor time)"
    print(f"{len(notebooks)} notebooks and {len(tests)} test files in {seconds}")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 0 if passed and not failed else 1


if __name__ == "__main__": sys.exit(main())
