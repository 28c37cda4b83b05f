"""What the pages promise: links, anchors, pictures, files, commands, flags and settings that they name are there. No network."""
import configparser
import dataclasses
import functools
import html
import importlib
import importlib.util
import json
import os
import re
import shlex
from pathlib import Path

import nbformat
import pytest
import yaml

from latent_summ.ui.cli import COMMANDS, takes_settings
from latent_summ.config import Config
from latent_summ.ui.flags import choices_of

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


@functools.cache
def pages():
    spec = importlib.util.spec_from_file_location("pages", ROOT / ".ci/pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- what is read ----------------------------------------------------------------------------------------------------

def notebooks() -> list[Path]:
    return [p for p in sorted(NBS.rglob("*.ipynb")) if not any(part[0] in "._" for part in p.relative_to(NBS).parts)]


@functools.cache
def markdown(path: Path) -> str:
    "Everything in a page that is markdown: its cells and its outputs."
    if path.suffix != ".ipynb": return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [o["data"]["text/markdown"] for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {})]
    return "\n\n".join(["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"] + ["".join(o) for o in outputs])


def documents() -> list[Path]: return [ROOT / "README.md", ROOT / "CHANGELOG.md", *notebooks()]


def name(path: Path) -> str: return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str: return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.S | re.M)


def code_spans(text: str) -> list[str]:
    "Inline code, and the lines of shell blocks (a backslash at the end goes on)."
    shell = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text)) + lines


# --- links -----------------------------------------------------------------------------------------------------------

def links(text: str) -> list[str]:
    "Targets of links and pictures that are not on another site; code is no link."
    bare = re.sub(r"(?<!`)`[^`\n]+`(?!`)", "", prose(text))
    found = re.findall(r"\]\(([^)\s]+)\)", bare) + re.findall(r"""<(?:a|img)[^>]*(?:href|src)=["']([^"']+)""", bare)
    return [t for t in found if not re.match(r"[a-z]+:", t)]


def anchors(path: Path) -> set[str]:
    "Anchors of a page that are the same on GitHub and on the website: Quarto leaves out what stands before a heading's first letter."
    heads = re.findall(r"^#+ +(.+?)\s*$", prose(markdown(path)), re.M)
    return {pages().slug(h.replace("`", "")) for h in heads if h[0].isalpha()}


def broken(path: Path, text: str) -> list[str]:
    out = []
    for link in links(text):
        target, _, anchor = link.partition("#")
        to = path.parent / target if target else path
        if not to.exists(): out.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(to): out.append(f"{link}: no such heading")
    return out


@pytest.mark.parametrize("path", documents(), ids=name)
def test_links_lead_somewhere(path):
    found = broken(path, markdown(path))
    assert not found, "\n".join(found)


def test_a_broken_link_is_found():
    page = NBS / "faq.ipynb"
    good = "[a](00_config.ipynb), [b](#what-it-is), ![c](../README.md), `[code](nowhere.ipynb)`, [d](https://example.org/nowhere)"
    assert broken(page, good) == []
    assert len(broken(page, "[a](nowhere.ipynb) [b](#nowhere) [c](index.ipynb#nowhere) ![d](nowhere.png)")) == 4


def test_website_holds_every_page_once():
    listed = [s for _, found in pages().outline() for s in found]
    have = [p.relative_to(NBS).as_posix() for p in notebooks()] + ["changelog.md"]
    assert len(listed) == len(set(listed)), "twice in the side bar of _quarto.yml"
    missing, gone = sorted(set(have) - set(listed)), sorted(set(listed) - set(have))
    assert not missing and not gone, f"the side bar of _quarto.yml lacks {missing} and names {gone}, which are not there"


def test_changelog_is_linked():
    assert (NBS / "changelog.md").is_symlink() and os.readlink(NBS / "changelog.md") == "../CHANGELOG.md"


def test_plain_website(tmp_path):
    "Two pages that name each other: links become those of the website, anchors are found, and a broken link is told."
    p, cell = pages(), nbformat.v4.new_markdown_cell
    def page(source, *texts): return p.Page(source.replace(".ipynb", ".html"), source, nbformat.v4.new_notebook(cells=[cell(t) for t in texts]), source)
    one = page("index.ipynb", "# One", "## What it can't do", "[two](sub/two.ipynb#a-heading) [site](https://site/sub/two.html#a-heading) [away](https://example.org)")
    two = page("sub/two.ipynb", "# Two", "## A heading", "## A heading", "[one](../index.ipynb#what-it-cant-do)")
    p.write_pages(tmp_path / "docs", [("", [one]), ("More", [two])], "https://site/")
    text = (tmp_path / "docs/index.html").read_text(encoding="utf-8")
    assert text.count('href="sub/two.html#a-heading"') == 2 and 'id="what-it-cant-do"' in text and 'href="https://example.org"' in text
    assert 'id="a-heading-1"' in (tmp_path / "docs/sub/two.html").read_text(encoding="utf-8")
    assert p.broken_links(tmp_path / "docs") == []
    two.nb.cells.append(cell("[gone](../gone.ipynb) [no](../index.ipynb#nowhere)"))
    p.write_pages(tmp_path / "docs", [("", [one]), ("More", [two])], "https://site/")
    assert len(p.broken_links(tmp_path / "docs")) == 2


# --- names in the text -----------------------------------------------------------------------------------------------

FOLDERS = ("nbs/", "tests/", "benchmarks/", "latent_summ/", ".ci/", ".github/")


@pytest.mark.parametrize("path", documents(), ids=name)
def test_named_files_exist(path):
    spans = [w for span in code_spans(markdown(path)) for w in span.split()]
    named = {w.rstrip(".,;:") for w in spans if w.startswith(FOLDERS) and not re.search(r"[*{}<>$]|[A-Z]{3}", w)}
    gone = sorted(w for w in named if not (ROOT / w).exists())
    assert not gone, gone


def make_targets() -> set[str]: return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@functools.cache
def options(command: str) -> set[str]:
    form = COMMANDS[command][0]
    return {word for c in choices_of(form, takes_settings(form)) for word in c.flags}


def wrong_words(span: str) -> list[str]:
    "What a command line names that is not there: a target of make, a command, an option."
    span = re.sub(r"\s#\s.*", "", span).strip()
    m = re.match(r"(?:\S*torchrun .*-m )?(latent_summ|make) (\S+)(.*)", span)
    if not m: return []
    program, first, rest = m.groups()
    first = first.rstrip(",;:")
    if program == "make": return [] if first in make_targets() else [f"make {first}"]
    if first.isupper() or first.startswith(("-", "<", "[", "{")) or first == "help": return []
    if first not in COMMANDS: return [f"latent_summ {first}"]
    try: words = shlex.split(rest)
    except ValueError: words = rest.split()
    flags = {w.split("=")[0].rstrip(".,;:") for w in words if re.match(r"--[a-z]", w)} - {"--help"}
    known = options(first)
    return [f"latent_summ {first} {f}" for f in sorted(flags) if f not in known and not (f.startswith("--no-") and f.replace("--no-", "--", 1) in known)]


@pytest.mark.parametrize("path", [p for p in documents() if p.parent in (ROOT, NBS / "tutorials") or p.stem in ("index", "faq", "reference_config")], ids=name)
def test_commands_and_flags_exist(path):
    found = [w for span in code_spans(markdown(path)) for w in wrong_words(span)]
    assert not found, found


def test_a_wrong_command_is_found():
    assert wrong_words("latent_summ trian") and wrong_words("latent_summ train --learning-rat 3") and wrong_words("make dmeo") and wrong_words("latent_summ runs --seed 3")
    assert not wrong_words("latent_summ train --preset mini --no-use-bf16 --latent-dim=128  # a comment --nowhere")
    assert wrong_words("torchrun --nproc-per-node 2 -m latent_summ train --nowhere") == ["latent_summ train --nowhere"]


def test_flags_named_alone_exist():
    "`--some-flag` in the pages for readers is an option of some command."
    known = {o for c in COMMANDS for o in options(c)}
    for path in (ROOT / "README.md", NBS / "faq.ipynb", *sorted((NBS / "tutorials").glob("*.ipynb"))):
        alone = {s.split()[0] for s in code_spans(markdown(path)) if re.match(r"--[a-z]", s)}
        gone = sorted(f for f in alone if f not in known and f.replace("--no-", "--", 1) not in known)
        assert not gone, (name(path), gone)


# --- README ----------------------------------------------------------------------------------------------------------

def script() -> str: return re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)[1]


def test_imports_of_the_script_work():
    for module, names in re.findall(r"^from (\S+) import (.+)$", script(), re.M):
        for n in names.split(","): assert hasattr(importlib.import_module(module), n.strip())


def test_the_script_is_what_the_first_tutorial_runs():
    code = [c["source"] for c in nbformat.read(NBS / "tutorials/01_first_run.ipynb", as_version=4).cells if c.cell_type == "code"]
    lines = script().split('print(row["dialogue"]')[1].splitlines()[1:]
    assert len(lines) == 3 and all(any(line in source for source in code) for line in lines)


def test_citation():
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    assert cite["version"] == settings["DEFAULT"]["version"] and cite["repository-code"] == settings["DEFAULT"]["git_url"] and cite["license"] == "MIT"
    assert cite["cff-version"] == "1.2.0" and cite["title"] and cite["authors"][0]["name"]


# --- configuration reference -----------------------------------------------------------------------------------------

def reference_table() -> str:
    cells = json.loads((NBS / "reference_config.ipynb").read_text(encoding="utf-8"))["cells"]
    return next("".join(o["data"]["text/html"]) for c in cells for o in c.get("outputs", []) if "text/html" in o.get("data", {}))


def test_configuration_reference_is_that_of_the_dataclass():
    table = reference_table()
    rows = dict(re.findall(r'<tr><td><code id="(\w+)">(.*?)</tr>', table))
    fields = {f.name: f for f in dataclasses.fields(Config)}
    stale = sorted(rows.keys() ^ fields.keys()) + [n for n, f in fields.items() if n in rows and not (
        html.escape(f.metadata["help"]) in rows[n] and f"<code>{html.escape(repr(f.default))}</code>" in rows[n])]
    assert not stale, f"run nbs/reference_config.ipynb again: {stale}"
    assert 'id="find-parameter"' in table


# --- workflows -------------------------------------------------------------------------------------------------------

def test_actions_are_pinned():
    "By commit with its version beside it, or by an exact version."
    for path in sorted((ROOT / ".github/workflows").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)["jobs"]
        for use in re.findall(r"uses: +(.+)", text):
            assert re.fullmatch(r"[\w./-]+@([0-9a-f]{40} # v\d+\.\d+\.\d+|v\d+\.\d+\.\d+)", use.strip()), f"{path.name}: {use}"
