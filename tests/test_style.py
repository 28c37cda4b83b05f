"""The package reads at least as easily as the worst of five models (tests/style.py has the figures and what they mean)."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import style

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "data", "encode", "model", "train", "use", "ui", "mini")  # of nbs/ ("." for the notebooks at its top), where no long run of export cells is left


@pytest.fixture(scope="module")
def measured() -> dict: return style.figures(ROOT / "latent_summ", ROOT / "nbs")


@pytest.mark.parametrize("name", style.LIMITS)
def test_a_figure_is_within_its_limit(name, measured):
    limit = style.LIMITS[name]
    where = style.places(ROOT / "latent_summ", ROOT / "nbs").get(name, [])  # measured with the figures
    assert measured[name] <= limit, f"{name} is {measured[name]:.2f}, at most {limit} is allowed:\n" + "\n".join(where[:40])


def test_ruff_has_nothing_to_say():
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--no-cache", ROOT], capture_output=True, text=True)
    assert not found.returncode, found.stdout + found.stderr


def test_no_two_places_share_more_than_eight_lines():
    found = style.shared_lines(style.modules(ROOT / "latent_summ"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", FOLDERS)
def test_export_cells_are_told_in_small_steps(folder):
    "At most four follow each other; then comes a sentence or an example."
    everywhere = style.long_runs(ROOT / "nbs", style.MOST_IN_A_ROW)
    found = [place for place in everywhere if Path(place).parent == Path(folder)]
    assert not found, f"nbs/{folder}: put an example between the cells, or join small ones:\n" + "\n".join(found)


# --- the script itself ------------------------------------------------------------------------------------------------

BAD = '''
def public(a, b):
    at, b = a, b
    return [[x for x in row] for row in a]  # ''' + "long " * 30 + '''

def documented(
    a, # what it is
): return a

def _private(a): return a
'''


def test_each_figure_counts_what_it_says(tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    found = style.places(tmp_path)
    assert {name: len(where) for name, where in found.items()} == dict(
        long_lines=1, nested=1, tuples=1, poor_names=1, undocumented=1, cell_max=0)
    assert style.figures(tmp_path)["nested"] == pytest.approx(100 / 3)


def test_copied_code_is_found_and_copied_data_is_not(tmp_path):
    lines = "".join(f"    x{i} = f({i})\n" for i in range(9))
    data = "TABLE = dict(\n" + "".join(f"    x{i}={i},\n" for i in range(20)) + ")\n"
    for name in ("a", "b"): (tmp_path / f"{name}.py").write_text(f"{data}def {name}(f):\n{lines}")
    assert len(style.shared_lines(style.modules(tmp_path))) == 1
    assert not style.shared_lines(style.modules(tmp_path), most=9)


def test_runs_of_export_cells_are_counted(tmp_path):
    def cell(source, kind="code"): return dict(cell_type=kind, id=source[-2:], source=source)
    export = [cell(f"#| export\nx = {i}") for i in range(5)]
    cells = [cell("#| export\nimport re"), *export[:2], cell("#| hide\nx"), *export[2:], cell("x == 4"), export[0]]
    (tmp_path / "a.ipynb").write_text(json.dumps(dict(cells=cells)))
    assert [(first, n) for _, first, n in style.export_runs(tmp_path)] == [(" 0", 5), (" 0", 1)]
    assert style.long_runs(tmp_path, 4) == ["a.ipynb  0: 5 export cells in a row"]
    cells.insert(4, cell("What follows, and why.", "markdown"))
    (tmp_path / "a.ipynb").write_text(json.dumps(dict(cells=cells)))
    assert not style.long_runs(tmp_path, 4)
