"""Every page of the website through axe-core, light and dark, on a phone and on a desk.

    make docs                                                   the pages, in _docs/
    pip install axe-playwright-python==0.1.8                    axe-core with its driver, from PyPI (here only: no other part of the project needs it)
    python tests/axe.py [--chromium /usr/bin/chromium] [--out benchmarks/results/axe.json]      (make axe)

Not part of `make test`: it needs a browser (any Chromium; without --chromium, the one that `playwright install chromium` fetched). Beside axe's own rules
it asks of each page that nothing is wider than the window. Status 1 if any finding is serious or critical, or any page is too wide.
"""
import argparse
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"phone": (390, 844), "desk": (1300, 900)}
SCHEMES = ("light", "dark")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def finding(page:str, view:str, violation:dict) -> dict:
    "One broken rule on one page: what it is, how grave, and up to three places."
    places = [node["html"][:200] for node in violation["nodes"]]
    return {"page": page, "view": view, "rule": violation["id"], "impact": violation["impact"], "places": len(places), "for_instance": places[:3]}


def look(tab, axe, path:Path, view:str, docs:Path) -> list[dict]:
    "All findings on one page as one reader sees it."
    tab.goto(path.as_uri())
    name = path.relative_to(docs).as_posix()
    found = [finding(name, view, v) for v in axe.run(tab).response["violations"]]
    over = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if over > 0: found.append({"page": name, "view": view, "rule": "wider-than-the-window", "impact": "serious", "places": 1, "for_instance": [f"{over} pixels"]})
    return found


def look_at_all(docs:Path, chromium:str|None) -> tuple[list[str], list[dict], str]: # (pages, findings, axe-core's version)
    "Every page in both schemes and both sizes."
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright
    pages, axe, found = sorted(docs.rglob("*.html")), Axe(), []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=QUIET)
        for scheme in SCHEMES:
            for size, (width, height) in SIZES.items():
                tab = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
                for path in pages: found += look(tab, axe, path, f"{size}, {scheme}", docs)
                tab.close()
        browser.close()
    version = axe.axe_script[:80].split("axe v")[1].split()[0]
    return [p.relative_to(docs).as_posix() for p in pages], found, version


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--docs", type=Path, default=ROOT / "_docs", help="folder of the website's pages")
    ap.add_argument("--chromium", help="path of a Chromium")
    ap.add_argument("--out", type=Path, help="where the result goes, as JSON")
    args = ap.parse_args()
    if not (args.docs / "index.html").exists(): sys.exit(f"There are no pages in {args.docs}: run `make docs` first.")
    pages, found, version = look_at_all(args.docs.resolve(), args.chromium)
    counts = Counter(f["impact"] for f in found)
    grave = counts["serious"] + counts["critical"]
    result = {"command": "make docs && python tests/axe.py --out benchmarks/results/axe.json", "axe_core": version, "views": [f"{s}, {c}" for c in SCHEMES for s in SIZES],
              "pages": pages, "by_impact": dict(counts), "serious_or_critical": grave, "findings": found}
    if args.out: args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for (rule, impact), n in Counter((f["rule"], f["impact"]) for f in found).most_common(): print(f"{n:5}  {impact:9} {rule}")
    print(f"{len(pages)} pages in {len(result['views'])} views with axe-core {version}: {grave} serious or critical findings")
    return int(grave > 0)


if __name__ == "__main__": sys.exit(main())
