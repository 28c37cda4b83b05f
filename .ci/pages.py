"""Pages from notebooks, without Quarto.

    python .ci/pages.py readme           write README.md (and the pictures in index_files/) from nbs/index.ipynb
    python .ci/pages.py readme --check   say whether README.md still agrees with it
    python .ci/pages.py html             a plain website in _docs/: nbdev's own processing, then nbconvert, in one template (.ci/page.html)

The website's order and sections are those of _quarto.yml, with Quarto and without it.
"""
import base64
import html
import posixpath
import re
import shutil
import string
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from nbconvert import HTMLExporter, MarkdownExporter
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
DIRECTIVE = re.compile(r"^\s*#\s*\|\s*([^\s:]+):?\s*(.*?)\s*$\n?", re.M)
HIDDEN = {"hide", "export", "exporti", "default_exp"}


def describe_pictures(cell, alt: str) -> None:
    "Give the pictures of a cell their alternative text, for those who do not see them."
    for out in cell.outputs:
        for kind in PICTURES.keys() & out.get("data", {}).keys():
            out.setdefault("metadata", {})[kind] = {"alt": alt}
            if kind == "image/svg+xml":
                out.data[kind] = re.sub(r"<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', out.data[kind], count=1)


def folded(cell, summary: str) -> nbformat.NotebookNode:
    "The code of a cell behind a line that opens it."
    code = f"<details><summary>{html.escape(summary)}</summary>\n\n```python\n{cell.source}\n```\n\n</details>"
    return nbformat.v4.new_markdown_cell(code, id=f"{cell.id}-code")


def plain_markdown(text: str) -> str:
    "Markdown as nbdev writes it for Quarto, without what only Quarto reads: attributes of links, and links inside signatures."
    text = re.sub(r'\)\{target="_blank"[^}]*\}', ")", text)
    lines = text.splitlines(keepends=True)
    for i, line in enumerate(lines):
        if re.match(r">\s{4,}|    ", line): lines[i] = re.sub(r"\[`([^`]+)`\]\(https?://[^)]*\)", r"\1", line)
    return "".join(lines)


def joined_streams(outputs: list) -> list:
    "Outputs in which what a cell printed is one text: a busy kernel sends it in pieces, which would be shown as paragraphs."
    joined = []
    for out in outputs:
        last = joined[-1] if joined else {}
        if out.output_type == "stream" and last.get("output_type") == "stream" and last["name"] == out.name: last["text"] += out.text
        else: joined.append(out.copy())
    return joined


def tidy(nb) -> None:
    "Follow the directives that a reader would see the effect of (hide, echo, output, include) and drop the lines themselves."
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            directives = dict(DIRECTIVE.findall(cell.source))
            off = {k for k, v in directives.items() if v.lower() == "false"}
            if HIDDEN & directives.keys() or "include" in off: continue
            cell.source = DIRECTIVE.sub("", cell.source).strip("\n")
            cell.outputs = [] if "output" in off else joined_streams(cell.outputs)
            if "echo" in off: cell.source, cell.metadata["transient"] = "", {"remove_source": True}
            if "fig-alt" in directives: describe_pictures(cell, directives["fig-alt"].strip("\"'"))
            for out in cell.outputs:
                if "text/markdown" in out.get("data", {}): out.data["text/markdown"] = plain_markdown("".join(out.data["text/markdown"]))
            if not cell.source and not cell.outputs: continue
            if directives.get("code-fold", "false") == "true" and cell.source:
                cells.append(folded(cell, directives.get("code-summary", "Code").strip("\"'")))
                cell.source, cell.metadata["transient"] = "", {"remove_source": True}
        elif not cell.source.strip(): continue
        cells.append(cell)
    nb.cells = cells
    nb.metadata["language_info"] = {"name": "python"}


# --- README.md -------------------------------------------------------------------------------------------------------

def repoint(text: str, nbs: Path) -> str:
    "Links that are relative to nbs/ become relative to the top of the repository."
    def link(m):
        target, anchor = re.fullmatch(r"([^#]*)(.*)", m[2], re.S).groups()
        if not target or not (nbs / target).exists(): return m[0]
        return f"{m[1]}{(nbs / target).resolve().relative_to(nbs.parent.resolve()).as_posix()}{anchor}{m[3]}"
    text = re.sub(r"(\]\()([^)\s:]+)(\))", link, text)
    return re.sub(r"""((?:src|href)=["'])([^"':]+)(["'])""", link, text)


def readme(root: Path = ROOT) -> tuple[str, dict[str, bytes]]:
    "The text of README.md, and its pictures by path; a picture is named by its cell, so that other cells can come and go."
    nb = nbformat.read(root / "nbs" / "index.ipynb", as_version=4)
    tidy(nb)
    pictures, names = {}, {}
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = repoint(cell.source, root / "nbs")
        for out in cell.get("outputs", []):
            if "text/markdown" in out.get("data", {}): out.data["text/markdown"] = repoint(out.data["text/markdown"], root / "nbs")
        for i, out in enumerate(cell.get("outputs", [])):
            for kind, ext in PICTURES.items():
                if kind not in out.get("data", {}): continue
                name, data = f"index_files/{cell.id}-{i}.{ext}", out.data[kind]
                pictures[name] = data.encode() if ext == "svg" else base64.b64decode(data)
                names[f"@@{name}@@"] = name
                alt = out.get("metadata", {}).get(kind, {}).get("alt", "")
                out.data = {"text/markdown": f"![{alt}](@@{name}@@)"}
                break
    text, _ = MarkdownExporter().from_notebook_node(nb)
    for mark, name in names.items(): text = text.replace(mark, name)
    text = re.sub(r"<style[^>]*>.*?</style>\n?", "", text, flags=re.S)  # a table's own style sheet shows as text on most sites
    text = re.sub(r"^```python\n\s*```\n", "", text, flags=re.M)  # a cell whose code is not shown
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    text = re.sub(r"^```\n\n+```python\n", "\n", text, flags=re.M)  # imports have a cell of their own: one block for the reader
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

@dataclass
class Page:
    to: str  # where it goes, below _docs
    title: str
    nb: nbformat.NotebookNode
    source: str  # where it comes from, below nbs


def slug(text: str) -> str:
    "The anchor of a heading, as GitHub makes it (and Quarto, where the heading begins with a letter)."
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", re.sub(r"<[^>]*>", "", html.unescape(text)).strip().lower()))


def front_matter(nb) -> dict:
    "nbdev leaves title and description in a raw cell for Quarto: take it out, and show them as a heading."
    if not nb.cells or nb.cells[0].cell_type != "raw": return {}
    meta = yaml.safe_load(nb.cells[0].source.strip().strip("-")) or {}
    title = f"# {meta.get('title', '')}\n\n> {meta.get('description', '')}".replace("\n\n> None", "")
    nb.cells[0] = nbformat.v4.new_markdown_cell(title)
    return meta


def read_page(path: Path, proc: Path) -> Page:
    "A processed notebook, or a markdown file."
    source = path.relative_to(proc)
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
        nb, meta = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), {"title": re.search(r"^# (.*)", text, re.M)[1]}
    else:
        nb = nbformat.read(path, as_version=4)
        meta = front_matter(nb)
        tidy(nb)
        heading = next((m[1] for c in nb.cells if (m := re.match(r"# (.*)", c.source))), path.stem)
        meta = {"title": heading} | meta
    return Page((source.parent / meta.get("output-file", f"{path.stem}.html")).as_posix(), str(meta["title"]), nb, source.as_posix())


def outline(root: Path = ROOT) -> list[tuple[str, list[str]]]:
    "The sections of the website with their pages: the side bar of _quarto.yml."
    sections = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    return [(s["section"], s["contents"]) if isinstance(s, dict) else ("", [s]) for s in sections]


def menu(root: Path = ROOT) -> list[tuple[str, str]]:
    "Words and pages of the bar at the top: that of _quarto.yml."
    bar = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["website"]["navbar"]["left"]
    return [(item["text"], item["href"]) for item in bar]


def scripts(root: Path = ROOT) -> str:
    "What _quarto.yml puts at the end of each page."
    parts = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))["format"]["html"]["include-after-body"]
    return "".join(part["text"] for part in parts)


def relink(body: str, page: Page, known: dict[str, str], address: str, anchors: dict[str, set[str]]) -> str:
    "Links between notebooks become links between pages; so do nbdev's links to the website's own address (which guess at anchors: one that is not there is left out)."
    here = posixpath.dirname(page.source)

    def link(m):
        target, anchor = re.fullmatch(r"([^#]*)(.*)", m[2]).groups()
        if target.startswith(address):
            to = target.removeprefix(address)
            if anchor[1:] not in anchors.get(to, ()): anchor = ""
        else: to = known.get(posixpath.normpath(posixpath.join(here, target))) if target else None
        return f'{m[1]}{posixpath.relpath(to or ".", posixpath.dirname(page.to) or ".")}{anchor}{m[3]}' if to else m[0]

    return re.sub(r'(href=")([^":]*|' + re.escape(address) + r'[^"]*)(")', link, body)


def number_headings(body: str) -> tuple[str, list[tuple[str, str, str]]]:
    "Headings with the anchors of `slug`, each once, and a list of them: level, anchor, text."
    found, seen = [], set()

    def head(m):
        level, inner = m[1], re.sub(r'<a class="anchor-link".*?</a>', "", m[3], flags=re.S)
        name = base = slug(inner)
        for n in range(1, 100):
            if name not in seen: break
            name = f"{base}-{n}"
        seen.add(name)
        found.append((f"h{level}", name, re.sub(r"<[^>]*>", "", inner)))
        return f'<h{level} id="{name}">{inner}<a class="anchor-link" href="#{name}" aria-label="link to this heading">#</a></h{level}>'

    return re.sub(r"<h([1-6])([^>]*)>(.*?)</h\1>", head, body, flags=re.S), found


def write_html() -> None:
    from nbdev.config import get_config
    from nbdev.serve import proc_nbs
    cfg = get_config()
    docs, proc = cfg.doc_path, proc_nbs(force=True, n_workers=2)
    pages = {p.source: p for p in (read_page(f, proc) for f in sorted(proc.rglob("*")) if f.suffix in (".ipynb", ".md"))}
    sections = [(name, [pages[s] for s in sources if s in pages]) for name, sources in outline()]
    lost = pages.pop("404.md", None)
    rest = [p for p in pages.values() if not any(p in found for _, found in sections)]
    if rest: sections.append(("More", rest))
    write_pages(docs, sections, f"{cfg.doc_host}{cfg.doc_baseurl}/", lost)
    for path in proc.rglob("*"):  # pictures and result files that the pages name
        if path.is_file() and path.suffix not in {".ipynb", ".yml", ".py", ".md"}:
            (docs / path.relative_to(proc)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, docs / path.relative_to(proc))
    print(f"{len(pages)} plain pages: open {docs.name}/index.html")
    print("This is the plain website. With Quarto on the PATH, make docs renders the full one, with search: https://quarto.org/docs/get-started/")
    if found := broken_links(docs): sys.exit("\n".join(["These links lead nowhere:", *found]))


def side_section(name: str, items: str, is_open: bool) -> str:
    "A section of the side bar, closed or open."
    if not name: return f"<ul>{items}</ul>"
    return f"<details{' open' if is_open else ''}><summary>{html.escape(name)}</summary><ul>{items}</ul></details>"


def write_pages(docs: Path, sections: list[tuple[str, list[Page]]], address: str, lost: Page | None = None) -> None:
    "All pages in the template, with the same navigation; `lost` is shown for addresses that do not exist, and stands in no list."
    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    for picture in ("favicon.png", "social.png"): shutil.copy2(ROOT / "nbs" / picture, docs / picture)
    order = [p for _, found in sections for p in found] + ([lost] if lost else [])
    known = {p.source: p.to for p in order}
    template = string.Template((ROOT / ".ci/page.html").read_text(encoding="utf-8"))
    light, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "github-dark"))
    shared = (ROOT / "nbs/styles.css").read_text(encoding="utf-8")
    style = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n.highlight, .highlight pre {{ background: var(--box); }}\n{shared}"
    top = [(text, known[s]) for text, s in menu() if s in known]
    names = {p.to: p.title for p in order}
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    bodies = {p.to: number_headings(exporter.from_notebook_node(p.nb)[0]) for p in order}
    anchors = {to: {name for _, name, _ in heads} for to, (_, heads) in bodies.items()}
    first = next((found for name, found in sections if name), None) # open on the first page, too
    for i, page in enumerate(order):
        def a(to, text=None, page=page):
            up, here = posixpath.relpath(to, posixpath.dirname(page.to) or "."), ' class="here"' if to == page.to else ""
            return f'<a href="{up}"{here}>{html.escape(text or names[to])}</a>'
        side = "".join(side_section(name, "".join(f"<li>{a(p.to)}</li>" for p in found), page in found or (i == 0 and found is first)) for name, found in sections)
        body, heads = bodies[page.to]
        toc = "<ul>" + "".join(f'<li class="{level}"><a href="#{name}">{text}</a></li>' for level, name, text in heads if level in ("h2", "h3")) + "</ul>"
        ends = [a(order[i - 1].to, f"← {names[order[i - 1].to]}") if i else "<span></span>", a(order[i + 1].to, f"{names[order[i + 1].to]} →") if i + 1 < len(order) else ""]
        up = posixpath.relpath(".", posixpath.dirname(page.to) or ".")
        title = page.title if page.to == "index.html" else f"{page.title} – latent_summ"
        text = template.substitute(title=html.escape(title), site=address, page=page.to, top_folder=up, code_style=style, script=scripts(),
                                   top="".join(a(to, text) for text, to in top), side=side,
                                   body=relink(body, page, known, address, anchors), toc=toc, before_after="".join(ends))
        (docs / page.to).parent.mkdir(parents=True, exist_ok=True)
        (docs / page.to).write_text(text, encoding="utf-8")


def broken_links(docs: Path) -> list[str]:
    "Links inside a website of plain pages that lead to no file, or to no anchor in it."
    texts = {p.relative_to(docs).as_posix(): p.read_text(encoding="utf-8") for p in docs.rglob("*.html")}
    anchors = {name: set(re.findall(r'(?:id|name)="([^"]+)"', text)) for name, text in texts.items()}
    found = []
    for name, text in texts.items():
        for target in dict.fromkeys(re.findall(r'(?:href|src)="([^"]+)"', text)):
            if re.match(r"[a-z]+:|//", target): continue
            file, _, anchor = html.unescape(target).partition("#")
            to = posixpath.normpath(posixpath.join(posixpath.dirname(name), file)) if file else name
            if not (docs / to).exists() or anchor and to in anchors and anchor not in anchors[to]: found.append(f"{name}: {target}")
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["readme"]: write_readme()
        case ["readme", "--check"]:
            found = readme_differences()
            if found: sys.exit("\n".join([*found, "Write it anew with `make readme`."]))
            print("README.md agrees with nbs/index.ipynb.")
        case ["html"]: write_html()
        case _: sys.exit(__doc__)
