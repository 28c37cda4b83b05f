"""Run every attack on every promise and show what came of it.

    python tests/promises/table.py [--out FILE]      (make promises)
    python tests/promises/table.py --reports a.xml b.xml   the table of runs that were made before (pytest --junitxml)

Runs this folder and what its files name in `ALSO`, prints the table (promise, attacks tried, survived) and writes it as JSON for the page of the docs.
"""
import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUT = HERE / "results.json"


def promise(path:Path) -> dict: # number, promise, attack, also
    "What a file says it attacks."
    sys.path[:0] = [p for p in (str(HERE.parent), str(HERE)) if p not in sys.path]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first, _, rest = module.__doc__.partition("\n")
    return dict(number=int(path.name[5:7]), promise=first.strip(), attack=" ".join(rest.split()), file=path.name, also=module.ALSO)


def promises() -> list: return [promise(p) for p in sorted(HERE.glob("test_[0-9][0-9]_*.py"))]


def run(ids:list, report:Path):
    env = os.environ | dict(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    words = ["-q", "-p", "no:cacheprovider", "--tb=short", "-o", "junit_family=xunit1", f"--junitxml={report}"]
    return subprocess.run([sys.executable, "-m", "pytest", *words, *ids], cwd=ROOT, env=env).returncode


def outcomes(report:Path): # yields (file, function, attacks, outcome)
    "The cases of a junit file: passed, failed, known (a break that is handed over) or skipped."
    for case in ET.parse(report).getroot().iter("testcase"):
        kinds = {child.tag: child for child in case}
        known = "skipped" in kinds and kinds["skipped"].get("type") == "pytest.xfail"
        outcome = "failed" if {"failure", "error"} & kinds.keys() else "known" if known else "skipped" if "skipped" in kinds else "passed"
        more = sum(int(p.get("value")) for p in case.iter("property") if p.get("name") == "attacks")
        yield case.get("classname").split(".")[-1] + ".py", re.sub(r"\[.*", "", case.get("name")), max(more, 1), outcome


def table(found:list, cases:list) -> list:
    "A line for each promise."
    lines = []
    for p in found:
        also = {tuple(a.split("::")) for a in p["also"]}
        mine, count = [c for c in cases if c[0] == p["file"] or (c[0], c[1]) in also], Counter()
        for _, _, n, outcome in mine: count[outcome] += n
        tried = count["passed"] + count["failed"] + count["known"]
        lines.append({k: p[k] for k in ("number", "promise", "attack")} | dict(tests=len(mine), tried=tried, survived=count["passed"], skipped=count["skipped"]))
    return lines


def show(lines:list):
    print(f"\n{'':2}  {'promise':100}  {'tried':>6}  {'survived':>8}")
    for line in lines: print(f"{line['number']:2}  {line['promise'][:100]:100}  {line['tried']:6,}  {line['survived']:8,}{'' if line['tried'] == line['survived'] else '  <--'}")
    print(f"{len(lines)} promises, {sum(x['tried'] for x in lines):,} attacks tried, {sum(x['survived'] for x in lines):,} survived")


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", type=Path, default=OUT)
    ap.add_argument("--reports", type=Path, nargs="*", default=[])
    args = ap.parse_args()
    found = promises()
    ids = [str(HERE), *sorted({f"tests/{a}" for p in found for a in p["also"]})]
    with tempfile.TemporaryDirectory() as folder:
        reports = args.reports or [Path(folder) / "report.xml"]
        if not args.reports: run(ids, reports[0])
        lines = table(found, [case for report in reports for case in outcomes(report)])
    command = "pytest --junitxml of tests/promises alone, then table.py --reports" if args.reports else "make promises"
    args.out.write_text(json.dumps(dict(command=command, promises=lines), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(lines)
    return 0 if all(x["tried"] == x["survived"] > 0 for x in lines) else 1


if __name__ == "__main__": sys.exit(main())
