"""Run every notebook and every test file, each in a process of its own, and count truthfully.

    python tests/run_all.py [--jobs 2] [--timeout 600] [--flags "slow cuda"] [PATH ...]

One line per notebook or test file; the last line is `N passed, N failed` (and `, N skipped` when there are any).
A notebook is one test, a test file counts as many as it holds. The exit status is 0 only if something passed and nothing failed.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SKIP_CELL = re.compile(r"^\s*#\s*\|\s*(slow|cuda|eval:\s*false)\s*$", re.M)
SKIP_NOTEBOOK = re.compile(r"^\s*(?:-\s*)?skip_exec:\s*true\s*$", re.M | re.I)
TAIL_LINES = 60

running: set[subprocess.Popen] = set()
say_lock = threading.Lock()
stopping = threading.Event()


@dataclass
class Result:
    path: Path
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
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


def environment(scratch: Path, flags: str) -> dict[str, str]:
    "One thread each, offline, with an empty model cache: what passes here passes on a machine that has never seen a hub."
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(scratch)}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    env["PATH"] = os.pathsep.join([str(BIN), env.get("PATH", "")])
    env.setdefault("HF_HUB_OFFLINE", "1")
    if not flags: env["HF_HOME"] = str(scratch / "hf-home")
    return env


def run(cmd: list[str], env: dict[str, str], timeout: float) -> tuple[int | None, str]:
    "Run `cmd`; returns its exit status (None: it ran out of time) and everything it said."
    if stopping.is_set(): return 130, "interrupted"
    with tempfile.TemporaryFile(dir=env["TMPDIR"]) as out:
        p = subprocess.Popen(cmd, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        running.add(p)
        try: status = p.wait(timeout)
        except subprocess.TimeoutExpired: status = None
        finally:
            kill(p)
            running.discard(p)
        out.seek(0)
        return status, out.read().decode("utf-8", "replace")


def kill(p: subprocess.Popen):
    "End `p` and everything it started (they share a process group)."
    try: os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    p.wait()


def cells_to_run(path: Path, flags: str) -> int | None:
    "How many cells nbdev_test would run in this notebook; None if the notebook asks to be left out."
    cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    if any(kind != "code" and SKIP_NOTEBOOK.search(text) for kind, text in cells[:2]): return None
    wanted = set(flags.split())
    def skipped(text): return any(m not in wanted for m in SKIP_CELL.findall(text))
    return sum(kind == "code" and bool(text.strip()) and not skipped(text) for kind, text in cells)


def run_notebook(path: Path, env: dict[str, str], timeout: float, flags: str) -> Result:
    "One notebook is one test. nbdev_test exits 0 on a path that matches nothing, so its `Success.` is asked for as well."
    try: n = cells_to_run(path, flags)
    except (ValueError, KeyError, TypeError) as e: return Result(path, failed=1, note=f"not a notebook: {e}")
    if n is None: return Result(path, skipped=1, note="skip_exec: true")
    if n == 0: return Result(path, skipped=1, note="no cell to run")
    cmd = [str(BIN / "nbdev_test"), "--path", str(path), "--n_workers", "0", *(["--flags", flags] if flags else [])]
    status, output = run(cmd, env, timeout)
    if status == 0 and re.search(r"^Success\.$", output, re.M): return Result(path, passed=1)
    if status is None: note = f"still running after {timeout:.0f} s"
    elif status == 0: note = "ended without the `Success.` of nbdev_test"
    else: note = f"exit status {status}"
    return Result(path, failed=1, note=note, output=output)


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


def run_tests(path: Path, env: dict[str, str], timeout: float, scratch: Path) -> Result:
    "One test file with pytest, counted from its junit file; a crash, a collection error or an empty file is a failure."
    report = scratch / ("-".join(path.relative_to(ROOT).with_suffix(".xml").parts) if path.is_relative_to(ROOT) else f"{path.stem}.xml")
    cmd = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}", str(path)]
    status, output = run(cmd, env, timeout)
    r = Result(path, output=output)
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
        print(f"{mark:4} {r.seconds:6.1f} s  {name}  {counts}{'  ' if counts and r.note else ''}{r.note}".rstrip())
        for line in r.output.rstrip().splitlines()[-TAIL_LINES:] if r.failed else []: print(f"    | {line}")
        sys.stdout.flush()


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("paths", nargs="*", type=Path, help="notebooks, test files or folders (default: nbs and tests)")
    ap.add_argument("--jobs", type=int, default=2, help="how many at a time, one thread each")
    ap.add_argument("--timeout", type=float, default=600, help="seconds a notebook may take; a test file gets twice that")
    ap.add_argument("--flags", default="", help='cells to run that are skipped otherwise, for instance "slow cuda"')
    args = ap.parse_args()
    start = time.monotonic()
    notebooks, tests = find([p.resolve() for p in args.paths] or [ROOT / "nbs", ROOT / "tests"])

    with tempfile.TemporaryDirectory(prefix="latent_summ-test-") as scratch:
        scratch = Path(scratch)
        env = environment(scratch, args.flags)

        def job(path):
            t = time.monotonic()
            try:
                if path.suffix == ".ipynb": r = run_notebook(path, env, args.timeout, args.flags)
                else: r = run_tests(path, env, 2 * args.timeout, scratch)
            except Exception as e: r = Result(path, failed=1, note=f"{type(e).__name__}: {e}")
            r.seconds = time.monotonic() - t
            if not stopping.is_set(): tell(r)
            return r

        with ThreadPoolExecutor(args.jobs) as pool:
            largest_first = sorted(tests, key=lambda p: -sum(f.stat().st_size for f in ([p] if p.is_file() else p.rglob("*.py"))))
            futures = [pool.submit(job, p) for p in largest_first + notebooks]  # the long ones are not left for the end
            try: results = [f.result() for f in futures]
            except KeyboardInterrupt:
                stopping.set()
                for p in list(running): kill(p)
                pool.shutdown(cancel_futures=True)
                print("interrupted")
                return 130

    passed, failed, skipped = (sum(getattr(r, k) for r in results) for k in ("passed", "failed", "skipped"))
    print(f"{len(notebooks)} notebooks and {len(tests)} test files in {time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 0 if passed and not failed else 1


if __name__ == "__main__": sys.exit(main())
