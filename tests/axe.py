"""Every page of the website through axe-core: all its rules on a phone in light mode, contrast once more on a desk in dark mode.

    make docs                                                   the pages, in _docs/
    pip install axe-playwright-python==0.1.8                    axe-core with its driver, from PyPI (here only: no other part of the project needs it)
    python tests/axe.py [--chromium /usr/bin/chromium] [--out benchmarks/results/axe.json]      (make axe)

Not part of `make test`: it needs a browser (any Chromium; without --chromium, the one that `playwright install chromium` fetched). Beside axe's own rules
it checks that no page is wider than the window, and that the tables of settings need no scrolling. Status 1 if any finding is serious or critical, or any page is too wide.
Takes about ten minutes.
"""
import argparse
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIEWS = { # (width, height), colour scheme, whether all rules are checked (else contrast alone)
    "phone, light": ((390, 844), "light", True),
    "desk, dark": ((1300, 900), "dark", False)}
# Measuring contrast takes minutes on a long page, so one element of each kind is measured: of each colour, background, size and weight of text.
MARK_KINDS = """() => {
  const kinds = new Set()
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue
    const style = getComputedStyle(element), kind = [style.color, style.fontSize, style.fontWeight]
    for (let e = element; e; e = e.parentElement) kind.push(getComputedStyle(e).backgroundColor, getComputedStyle(e).opacity)
    const name = [...new Set(kind)].join()
    if (!kinds.has(name)) { kinds.add(name); element.setAttribute("data-contrast", "") }
  }
}"""
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def finding(page:str, view:str, violation:dict) -> dict:
    "One broken rule on one page: what it is, how grave, and up to three places."
    places = [node["html"][:200] for node in violation["nodes"]]
    return {"page": page, "view": view, "rule": violation["id"], "impact": violation["impact"], "places": len(places), "for_instance": places[:3]}


def look(tab, axe, path:Path, view:str, docs:Path) -> list[dict]:
    "All findings on one page in one view."
    tab.goto(path.as_uri())
    name, found = path.relative_to(docs).as_posix(), []
    if VIEWS[view][2]: found += axe.run(tab, options={"rules": {"color-contrast": {"enabled": False}}}).response["violations"]
    tab.evaluate(MARK_KINDS)
    found += axe.run(tab, "[data-contrast]", {"runOnly": {"type": "rule", "values": ["color-contrast"]}}).response["violations"]
    found = [finding(name, view, v) for v in found]
    over = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if over > 0: found.append({"page": name, "view": view, "rule": "wider-than-the-window", "impact": "serious", "places": 1, "for_instance": [f"{over} pixels"]})
    cut = tab.evaluate("[...document.querySelectorAll('table.settings')].filter(t => t.scrollWidth > t.clientWidth).length")
    if cut: found.append({"page": name, "view": view, "rule": "settings-are-cut", "impact": "serious", "places": cut, "for_instance": ["table.settings"]})
    return found


def look_at_all(docs:Path, names:list[str], chromium:str|None) -> tuple[list[dict], str]: # (findings, axe-core's version)
    "The pages in every view."
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright
    pages, axe, found = [docs / name for name in names], Axe(), []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=QUIET)
        for view, ((width, height), scheme, _) in VIEWS.items():
            tab = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
            for i, path in enumerate(pages):
                print(f"{view}: {i + 1}/{len(pages)} {path.relative_to(docs)}", flush=True)
                found += look(tab, axe, path, view, docs)
            tab.close()
        browser.close()
    version = axe.axe_script[:80].split("axe v")[1].split()[0]
    return found, version


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--docs", type=Path, default=ROOT / "_docs", help="folder of the website's pages")
    ap.add_argument("--chromium", help="path of a Chromium")
    ap.add_argument("--pages", nargs="*", help="only these, such as faq.html: what they had in --out is replaced, the other pages keep theirs")
    ap.add_argument("--out", type=Path, help="where the result goes, as JSON")
    args = ap.parse_args()
    if not (args.docs / "index.html").exists(): sys.exit(f"There are no pages in {args.docs}: run `make docs` first.")
    docs = args.docs.resolve()
    pages = sorted(p.relative_to(docs).as_posix() for p in docs.rglob("*.html"))
    found, version = look_at_all(docs, args.pages or pages, args.chromium)
    if args.pages: found = [f for f in json.loads(args.out.read_text(encoding="utf-8"))["findings"] if f["page"] not in args.pages] + found
    counts = Counter(f["impact"] for f in found)
    grave = counts["serious"] + counts["critical"]
    views = {view: "all rules" if is_all else "contrast" for view, (_, _, is_all) in VIEWS.items()}
    result = {"command": "make docs && python tests/axe.py --out benchmarks/results/axe.json", "axe_core": version, "views": views, "pages": pages,
              "by_impact": dict(counts), "serious_or_critical": grave, "findings": found}
    if args.out: args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for (rule, impact), n in Counter((f["rule"], f["impact"]) for f in found).most_common(): print(f"{n:5}  {impact:9} {rule}")
    print(f"{len(pages)} pages in {len(VIEWS)} views with axe-core {version}: {grave} serious or critical findings")
    return int(grave > 0)


if __name__ == "__main__": sys.exit(main())
