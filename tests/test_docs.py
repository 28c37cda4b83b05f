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
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from latent_summ.ui.cli import COMMANDS, takes_settings
from latent_summ.config import Config
from latent_summ.sections import SECTIONS
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
    good = "[a](00_config.ipynb), [b](#out-of-memory), ![c](../README.md), `[code](nowhere.ipynb)`, [d](https://example.org/nowhere)"
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
    assert "<details open><summary>More</summary>" in text # the first section is open on the first page
    assert "<details open><summary>More</summary>" in (tmp_path / "docs/sub/two.html").read_text(encoding="utf-8")
    three = page("three.ipynb", "# Three")
    p.write_pages(tmp_path / "docs", [("", [one]), ("More", [two]), ("Other", [three])], "https://site/")
    assert "<details><summary>Other</summary>" in (tmp_path / "docs/sub/two.html").read_text(encoding="utf-8")
    assert "<details><summary>More</summary>" in (tmp_path / "docs/three.html").read_text(encoding="utf-8")
    assert p.broken_links(tmp_path / "docs") == []
    two.nb.cells.append(cell("[gone](../gone.ipynb) [no](../index.ipynb#nowhere)"))
    p.write_pages(tmp_path / "docs", [("", [one]), ("More", [two])], "https://site/")
    assert len(p.broken_links(tmp_path / "docs")) == 2


def test_what_a_cell_prints_is_one_text():
    "A busy kernel sends it in pieces, which a page would show with gaps."
    pieces = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in (("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"))]
    joined = pages().joined_streams(pieces)
    assert [(out.name, out.text) for out in joined] == [("stdout", "a\nb\n"), ("stderr", "c\n")] and pieces[0].text == "a\n"


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


def marks_left(text: str) -> list[str]:
    "Lines of a page on which an asterisk or a backtick is left beside a word: emphasis or code that was never closed."
    shown = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    shown = re.sub(r"<(pre|code)\b.*?</\1>", "", markdown2html_mistune(shown), flags=re.S)
    return [line for line in re.sub(r"<[^>]+>", "", shown).splitlines() if re.search(r"\*\w|\w\*|`", line)]


@pytest.mark.parametrize("path", documents(), ids=name)
def test_emphasis_is_closed(path):
    if path.suffix != ".ipynb": cells = [path.read_text(encoding="utf-8")]
    else: cells = ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "markdown"]
    assert not [line for cell in cells for line in marks_left(cell)]


def test_open_emphasis_is_found():
    assert marks_left("***You need** nothing") and marks_left("**Nats* are bits") and marks_left("a `word")
    assert not marks_left("**You need** *nothing* but `2 * x` <!-- `a -->") and not marks_left("```\n*args\n```")


def test_readme_says_no_more_of_other_projects_than_was_read():
    peers = json.loads((NBS / "experiments/peers.json").read_text(encoding="utf-8"))
    offers = [peer["offers"] for peer in peers["peers"]]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(offers) == 11 and "eleven related projects" in text and f"none has more than {max(map(len, offers))} of these eight" in text
    assert not peers["per_text_loss"] and all(peer["link"].startswith("https://") and peer["read"] for peer in peers["peers"])
    assert all(set(found) <= set(peers["things"]) for found in offers) and len(peers["things"]) == 8
    for peer in peers["peers"]: assert f"[{peer['name']}]({peer['link']})" in markdown(NBS / "experiments/instruments.ipynb")


def test_imports_of_the_script_work():
    for module, names in re.findall(r"^from (\S+) import (.+)$", script(), re.M):
        for n in names.split(","): assert hasattr(importlib.import_module(module), n.strip())


def test_the_script_is_what_the_first_tutorial_runs():
    code = [c["source"] for c in nbformat.read(NBS / "tutorials/01_first_run.ipynb", as_version=4).cells if c.cell_type == "code"]
    lines = [line for line in script().split('print(row["dialogue"]')[1].splitlines()[1:] if line[0] != "#"]
    assert len(lines) == 3 and all(any(line in source for source in code) for line in lines)


@pytest.mark.parametrize("path", sorted((NBS / "tutorials").glob("*.ipynb")), ids=name)
def test_tutorials_have_exercises_and_their_notebook(path):
    text = markdown(path)
    assert re.findall(r"^\*\*(\d)\.\*\*", text, re.M) == ["1", "2"], "two exercises, each with its answer"
    assert f"[{path.name}](https://github.com/latent-summ/latent_summ/blob/main/nbs/tutorials/{path.name})" in text


def test_the_script_is_shown_with_its_output():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len([line for line in script().splitlines() if line and line[0] != "#"]) <= 10
    output = text.split("```python")[1].split("```")[1].split("##")[0]
    assert output.count("\n    ") >= 5 and " -> " in output, "run nbs/index.ipynb, then make readme"


def tables(text: str) -> list[list[str]]:
    "The rows of each table, without head and rule."
    return [block.splitlines()[2:] for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]


def test_readme_sells_and_teaches_in_a_minute():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 900 <= len(text.split()) <= 1000, f"{len(text.split())} words; 900 to 1,000 are wanted"
    heads = re.findall(r"^## (.+)", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    assert heads == ["Start", "Ten lines", "Results", "What it measures", "Learn it", "Speed", "Commands", "What it can't do", "Cite"]
    results, instruments, speed, commands = tables(text)
    assert (len(results), len(instruments), len(speed), len(commands)) == (5, 8, 4, 6)
    assert len(re.findall(r"^\d\. \[.+\]\(nbs/tutorials/", text, re.M)) == 8
    assert sum("missed" in row for row in speed) == 1
    assert len(re.findall(r"^- ", text.split("## What it can't do")[1], re.M)) == 4


def test_the_first_example_is_right_everywhere():
    "The chat of the first tutorial, the help and the model card: the model in the package writes its reference summary."
    from latent_summ.data.example import example_chat, shell_text
    from latent_summ.ui.cli import overview
    from latent_summ.use.inference import Summarizer
    from latent_summ.use.share import model_card
    row = example_chat()
    assert f"latent_summ summarize --model mini {shell_text(row['dialogue'])}" in markdown(NBS / "tutorials/01_first_run.ipynb")
    assert f"latent_summ summarize {shell_text(row['dialogue'])}" in overview()
    card = model_card(dict(config=Config.preset("mini").__dict__, backbones={}))
    assert json.dumps(row["dialogue"], ensure_ascii=False) in card
    assert Summarizer.from_pretrained("mini").summarize(row["dialogue"]) == row["summary"]


def test_citation():
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    assert cite["version"] == settings["DEFAULT"]["version"] and cite["repository-code"] == settings["DEFAULT"]["git_url"] and cite["license"] == "MIT"
    assert cite["cff-version"] == "1.2.0" and cite["title"] and cite["authors"][0]["name"]


# --- configuration reference -----------------------------------------------------------------------------------------

def reference_table() -> str:
    cells = json.loads((NBS / "reference_config.ipynb").read_text(encoding="utf-8"))["cells"]
    return next("".join(o["data"]["text/markdown"]) for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {}))


def test_configuration_reference_is_that_of_the_dataclass():
    table = reference_table().replace("<wbr>", "") # where a name may break
    rows = dict(re.findall(r'<tr><td[^>]*><code id="(\w+)">(.*?)</tr>', table))
    fields = {f.name: f for f in dataclasses.fields(Config)}
    stale = sorted(rows.keys() ^ fields.keys()) + [n for n, f in fields.items() if n in rows and not (
        html.escape(f.metadata["help"]) in rows[n] and f"<code>{html.escape(repr(f.default))}</code>" in rows[n])]
    assert not stale, f"run nbs/reference_config.ipynb again: {stale}"
    assert table.count("\n## ") + 1 == table.count("<table") == len(SECTIONS), "one heading and one table for each section"
    assert not re.search(r"<td>", table), "each cell has a label, for a phone"


# --- questions and answers -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words, heading", [
    ("nan loss", "The loss is NaN or not finite"), ("license", "Which license applies?"), ("multi gpu", "Does it run on several GPUs (multi-GPU)?"),
    ("out of memory", "Out of memory"), ("resume", "How do I resume an interrupted run?")])
def test_questions_are_found(words, heading):
    "Each question has a heading of the second level, which the search of the website indexes, and holds the words one looks for."
    text = markdown(NBS / "faq.ipynb")
    assert "\n### " not in text
    section = next(part for part in re.split(r"^## ", text, flags=re.M) if part.startswith(heading))
    assert all(word in section.lower().replace("-", " ") for word in words.split())


# --- what pages look like --------------------------------------------------------------------------------------------

def reader_pages() -> list[Path]:
    "Pages that are no module: home, tutorials, experiments, references."
    return [p for p in notebooks() if p.parent != NBS and p.parent.name in ("tutorials", "experiments") or p.parent == NBS and not p.stem[0].isdigit()]


def undescribed(cells: list[dict]) -> list[str]:
    "Cells that show a picture without an alternative text."
    found = []
    for cell in cells:
        shown = {kind for out in cell.get("outputs", []) for kind in out.get("data", {})}
        source = "".join(cell["source"])
        if shown & pages().PICTURES.keys() and not re.search(r'^#\| fig-alt: "[^"]{20,}"$', source, re.M): found.append(cell["id"])
    return found


@pytest.mark.parametrize("path", notebooks(), ids=name)
def test_pictures_are_described(path):
    assert not undescribed(json.loads(path.read_text(encoding="utf-8"))["cells"])


def test_a_picture_without_description_is_found():
    cell = dict(id="a", source=["plt.show()"], outputs=[dict(data={"image/png": ""})])
    assert undescribed([cell]) == ["a"]
    assert undescribed([cell | dict(source=['#| fig-alt: "A curve that falls, and rises again."\n', "plt.show()"])]) == []


PRIVATE = re.compile(r"(?:/work|/root|/home|/tmp)/[\w./-]+|\w*Warning:")


@pytest.mark.parametrize("path", notebooks(), ids=name)
def test_no_machine_shows_in_outputs(path):
    "No folder of a machine and no warning is printed."
    outputs = [o for c in json.loads(path.read_text(encoding="utf-8"))["cells"] for o in c.get("outputs", [])]
    texts = ["".join(o.get("text", [])) + "".join("".join(v) for k, v in o.get("data", {}).items() if k.startswith("text/")) for o in outputs]
    found = [m for text in texts for m in PRIVATE.findall(text)]
    assert not found, found


# Names that mean something else in most sentences: nbdev would link them to a function of this package. Write `latent_summ.use.evaluate.evaluate`, or the word in italics.
AMBIGUOUS = ("summary", "Trainer", "generate", "evaluate", "summarize", "reconstruct", "interpolate", "ok", "plan", "cache", "layers", "fit", "texts", "doctor", "chat")


def wrongly_linked(text: str) -> list[str]:
    "Words in backticks that nbdev would link to a function that is not meant."
    return [w for w in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text)) if w.removesuffix("()") in AMBIGUOUS]


@pytest.mark.parametrize("path", [*notebooks(), ROOT / "CHANGELOG.md"], ids=name)
def test_no_word_is_linked_by_mistake(path):
    found = wrongly_linked(markdown(path))
    assert not found, f"{found} in backticks: nbdev links these to functions"


def test_a_wrong_link_is_found():
    assert wrongly_linked("Call `evaluate()` or `plan`.") == ["evaluate()", "plan"]
    assert not wrongly_linked("Call `latent_summ.use.evaluate.evaluate`, or type `latent_summ plan`.\n```\n`plan`\n```")


def luminance(colour: str) -> float:
    "Relative luminance of #rrggbb (WCAG 2)."
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("back, text", [("navbar-back", "navbar-text"), ("code-back-dark", "code-text-dark")])
def test_colours_can_be_read(back, text):
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", (NBS / "styles.css").read_text(encoding="utf-8")))
    assert contrast(colours[back], colours[text]) >= 4.5 > contrast("#ffffff", "#2780e3")


def test_plain_markdown():
    "What only Quarto reads is left out, and signatures hold no links."
    text = '[source](https://a/b#L1){target="_blank" style="float:right"}\n\n>      f (a, # [`b`](https://a/c))\n\n[`b`](https://a/c)\n'
    assert pages().plain_markdown(text) == "[source](https://a/b#L1)\n\n>      f (a, # b)\n\n[`b`](https://a/c)\n"


def test_folded_code_and_described_pictures():
    cell = nbformat.v4.new_code_cell('#| code-fold: true\n#| code-summary: "Answer"\n#| fig-alt: "A curve"\n1 + 1', id="one")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "aGk="})]
    nb = nbformat.v4.new_notebook(cells=[cell])
    pages().tidy(nb)
    assert [c.cell_type for c in nb.cells] == ["markdown", "code"] and "<summary>Answer</summary>" in nb.cells[0].source
    assert nb.cells[1].source == "" and nb.cells[1].outputs[0].metadata["image/png"]["alt"] == "A curve"


def test_small_files_of_the_website():
    "Card and icon are small pictures; llms.txt names pages that exist; an unknown address gets a page."
    for file, most in (("social.png", 60_000), ("favicon.png", 5_000)):
        data = (NBS / file).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) <= most
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    assert site["website"]["favicon"] == "favicon.png" and site["website"]["twitter-card"]["image"] == site["website"]["open-graph"]["image"] == "social.png"
    address = "https://latent-summ.github.io/latent_summ/"
    have = {re.sub(r"^\d+_", "", p.stem) for p in notebooks()} | {"changelog"}
    named = re.findall(re.escape(address) + r"([\w/]+)\.html", (NBS / "llms.txt").read_text(encoding="utf-8"))
    assert len(named) >= 10 and {n.rpartition("/")[2] for n in named} <= have
    assert (NBS / "404.md").read_text(encoding="utf-8").startswith("# ")


# --- workflows -------------------------------------------------------------------------------------------------------

def test_actions_are_pinned():
    "By commit with its version beside it, or by an exact version."
    for path in sorted((ROOT / ".github/workflows").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)["jobs"]
        for use in re.findall(r"uses: +(.+)", text):
            assert re.fullmatch(r"[\w./-]+@([0-9a-f]{40} # v\d+\.\d+\.\d+|v\d+\.\d+\.\d+)", use.strip()), f"{path.name}: {use}"


def test_axe_found_nothing_serious():
    "The kept result of `make axe`: nearly all pages of the side bar were looked at, and no finding is serious. (It needs a browser, so it is not run here.)"
    result = json.loads((ROOT / "benchmarks/results/axe.json").read_text(encoding="utf-8"))
    assert len(result["pages"]) > 80 and result["serious_or_critical"] == 0
    assert not [f for f in result["findings"] if f["impact"] in ("serious", "critical")]
