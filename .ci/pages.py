"""Pages from notebooks, without Quarto.

    python .ci/pages.py readme           write README.md (and the pictures in index_files/) from nbs/index.ipynb
    python .ci/pages.py readme --check   say whether README.md still agrees with it
    python .ci/pages.py html             a plain website in _docs/: nbdev's own processing, then nbconvert
"""
import base64
import html
import re
import shutil
import sys
from pathlib import Path

import nbformat
import yaml
from nbconvert import HTMLExporter, MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
DIRECTIVE = re.compile(r"^\s*#\s*\|\s*([^\s:]+):?\s*(.*?)\s*$\n?", re.M)
HIDDEN = {"hide", "export", "exporti", "default_exp"}


def tidy(nb) -> None:
    "Follow the directives that a reader would see the effect of (hide, echo, output, include) and drop the lines themselves."
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            directives = dict(DIRECTIVE.findall(cell.source))
            off = {k for k, v in directives.items() if v.lower() == "false"}
            if HIDDEN & directives.keys() or "include" in off: continue
            cell.source = DIRECTIVE.sub("", cell.source).strip("\n")
            if "output" in off: cell.outputs = []
            if "echo" in off: cell.source = ""
            if not cell.source and not cell.outputs: continue
        elif not cell.source.strip(): continue
        cells.append(cell)
    nb.cells = cells
    nb.metadata["language_info"] = {"name": "python"}


# --- README.md -------------------------------------------------------------------------------------------------------

def repoint(text: str, nbs: Path) -> str:
    "Links that are relative to nbs/ become relative to the top of the repository."
    def link(m):
        target, anchor = re.fullmatch(r"([^#]*)(.*)", m[2], re.S).groups()
        return f"{m[1]}nbs/{target}{anchor}{m[3]}" if target and (nbs / target).exists() else m[0]
    text = re.sub(r"(\]\()([^)\s:]+)(\))", link, text)
    return re.sub(r"""((?:src|href)=["'])([^"':]+)(["'])""", link, text)


def readme(root: Path = ROOT) -> tuple[str, dict[str, bytes]]:
    "The text of README.md, and its pictures by path; a picture is named by its cell, so that other cells can come and go."
    nb = nbformat.read(root / "nbs" / "index.ipynb", as_version=4)
    tidy(nb)
    pictures, names = {}, {}
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = repoint(cell.source, root / "nbs")
        for i, out in enumerate(cell.get("outputs", [])):
            for kind, ext in PICTURES.items():
                if kind not in out.get("data", {}): continue
                name, data = f"index_files/{cell.id}-{i}.{ext}", out.data[kind]
                pictures[name] = data.encode() if ext == "svg" else base64.b64decode(data)
                names[f"@@{name}@@"] = name
                out.data = {"text/markdown": f"![](@@{name}@@)"}
                break
    text, _ = MarkdownExporter().from_notebook_node(nb)
    for mark, name in names.items(): text = text.replace(mark, name)
    text = re.sub(r"<style[^>]*>.*?</style>\n?", "", text, flags=re.S)  # a table's own style sheet shows as text on most sites
    text = re.sub(r"^```python\n\s*```\n", "", text, flags=re.M)  # a cell whose code is not shown
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    note = "<!-- Written from nbs/index.ipynb by `make readme`. -->\n\n"
    return note + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", pictures


def substance(text: str) -> list[str]:
    "What a reader reads: words and pictures, without comments, blank lines or spacing."
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def readme_differences(root: Path = ROOT) -> list[str]:
    "Everything in which README.md and its pictures differ from the notebook."
    text, pictures = readme(root)
    path = root / "README.md"
    if not path.exists(): return ["README.md is missing"]
    have, want = substance(path.read_text(encoding="utf-8")), substance(text)
    found = [f"README.md lacks: {line}" for line in want if line not in have]
    found += [f"only in README.md: {line}" for line in have if line not in want]
    if not found and have != want: found.append("README.md has the same lines in another order")
    for name, data in pictures.items():
        if not (root / name).exists(): found.append(f"{name} is missing")
        elif (root / name).read_bytes() != data: found.append(f"{name} differs from the notebook's picture")
    left = {p.relative_to(root).as_posix() for p in (root / "index_files").glob("*")} - pictures.keys()
    return found + [f"{name} belongs to no cell" for name in sorted(left)]


def write_readme(root: Path = ROOT) -> None:
    text, pictures = readme(root)
    shutil.rmtree(root / "index_files", ignore_errors=True)
    for name, data in pictures.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    (root / "README.md").write_text(text, encoding="utf-8")
    print(f"README.md: {len(text.splitlines())} lines, {len(pictures)} pictures in index_files/")


# --- a plain website -------------------------------------------------------------------------------------------------

def front_matter(nb) -> dict:
    "nbdev leaves title and description in a raw cell for Quarto: take it out, and show them as a heading."
    if not nb.cells or nb.cells[0].cell_type != "raw": return {}
    meta = yaml.safe_load(nb.cells[0].source.strip().strip("-")) or {}
    title = f"# {meta.get('title', '')}\n\n> {meta.get('description', '')}".replace("\n\n> None", "")
    nb.cells[0] = nbformat.v4.new_markdown_cell(title)
    return meta


def write_html() -> None:
    from nbdev.config import get_config
    from nbdev.serve import proc_nbs
    docs = get_config().doc_path
    proc = proc_nbs(force=True, n_workers=2)
    pages = []  # (where it goes, title, notebook)
    for path in sorted(proc.rglob("*.ipynb"), key=lambda p: (p.parent != proc, p.parent, p.name != "index.ipynb", p.name)):
        nb = nbformat.read(path, as_version=4)
        meta = front_matter(nb)
        tidy(nb)
        pages.append((path.parent.relative_to(proc) / meta.get("output-file", f"{path.stem}.html"), meta.get("title", path.stem), nb, path))
    shutil.rmtree(docs, ignore_errors=True)
    moved = {src.relative_to(proc).as_posix(): to.as_posix() for to, _, _, src in pages}
    for to, title, nb, src in pages:
        up = "../" * (len(to.parts) - 1)
        items = "".join(f'<li><a href="{up}{t.as_posix()}">{html.escape(str(name))}</a></li>' for t, name, _, _ in pages)
        nb.cells.insert(0, nbformat.v4.new_markdown_cell(f"<details><summary>all pages</summary><ul>{items}</ul></details>"))

        def link(m, src=src, up=up):
            target = (src.parent / m[2]).resolve()
            name = target.relative_to(proc.resolve()).as_posix() if target.is_relative_to(proc.resolve()) else ""
            return f"{m[1]}{up}{moved[name]}" if name in moved else m[0]

        for cell in nb.cells:
            if cell.cell_type == "markdown": cell.source = re.sub(r"(\]\()([^)\s:#]+\.ipynb)", link, cell.source)
        page, _ = HTMLExporter().from_notebook_node(nb, {"metadata": {"name": str(title)}})
        (docs / to).parent.mkdir(parents=True, exist_ok=True)
        (docs / to).write_text(page, encoding="utf-8")
    for path in proc.rglob("*"):  # pictures and style sheets that the pages name
        if path.is_file() and path.suffix not in {".ipynb", ".yml", ".py"}:
            (docs / path.relative_to(proc)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, docs / path.relative_to(proc))
    print(f"{len(pages)} plain pages: open {docs.name}/index.html")
    print("With Quarto on the PATH, make docs renders the full website instead: https://quarto.org/docs/get-started/")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["readme"]: write_readme()
        case ["readme", "--check"]:
            found = readme_differences()
            if found: sys.exit("\n".join([*found, "Write it anew with `make readme`."]))
            print("README.md agrees with nbs/index.ipynb.")
        case ["html"]: write_html()
        case _: sys.exit(__doc__)
