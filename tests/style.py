"""How the package reads, in figures: the same ones for any Python code.

    python tests/style.py                    the table for latent_summ
    python tests/style.py FOLDER             for another package
    python tests/style.py --where NAME       each place that counts against a figure, for instance --where long_lines
    python tests/style.py --runs             where more than four export cells follow each other without an example

`LIMITS` is the worst value among five packages that are read as models (fastcore, claudette, miniai, nanochat and Meta's
large_concept_model), measured by this script on their own files. tests/test_style.py holds latent_summ to them.
"""
import argparse
import ast
import functools
import itertools
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 120
MOST_IN_A_ROW = 4  # export cells without a sentence or an example between them
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
POOR_NAMES = set("""at own found what there told more goes_on did have some far wanted big known seen made given asked left begun
                    been here""".split())  # pronouns, adverbs and participles: a value is named by a noun

LIMITS = dict(  # figure -> the most that is allowed
    long_lines=2.9,  # lines over 120 characters, percent
    nested=1.3,  # functions with a comprehension inside a comprehension, percent
    tuples=12.0,  # `a, b = x, y`, for 1,000 lines
    poor_names=0.3,  # percent of the names that are assigned
    cell_median=9,  # lines of an export cell
    cell_max=56,
    undocumented=0,  # public functions with parameters, none of which is described
)


def modules(package: Path) -> list[Path]:
    "The files of a package, without nbdev's index."
    return sorted(p for p in package.rglob("*.py") if p.name != "_modidx.py")


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def has_nesting(node: ast.AST) -> bool:
    "Whether a comprehension stands inside a comprehension."
    outer = (n for n in ast.walk(node) if isinstance(n, COMPREHENSIONS))
    return any(isinstance(inner, COMPREHENSIONS) for n in outer for inner in ast.walk(n) if inner is not n)


def is_tuple_assignment(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def assigned_names(tree: ast.AST) -> list[ast.Name]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def is_undocumented(function: ast.FunctionDef, lines: list[str]) -> bool:
    "Whether a public function has parameters and no comment in its signature."
    arguments = [a for a in function.args.args + function.args.kwonlyargs if a.arg not in ("self", "cls")]
    signature = "\n".join(lines[function.lineno - 1:function.body[0].lineno - 1])
    return bool(arguments) and not function.name.startswith("_") and "#" not in signature


def notebook_cells(notebooks: Path) -> Iterator[tuple[Path, list[dict]]]:
    "Each notebook below a folder, with its cells."
    for path in sorted(notebooks.rglob("*.ipynb")):
        if any(part[0] in "._" for part in path.relative_to(notebooks).parts): continue
        yield path, json.loads(path.read_text(encoding="utf-8"))["cells"]


def is_export(cell: dict) -> bool:
    return cell["cell_type"] == "code" and bool(re.match(r"#\|\s*export", "".join(cell["source"])))


def export_cells(notebooks: Path) -> Iterator[tuple[Path, str, str]]:
    "(notebook, id, source) of each cell that becomes part of the package."
    for path, cells in notebook_cells(notebooks):
        for cell in filter(is_export, cells): yield path, cell.get("id", "?"), "".join(cell["source"])


def is_silent(cell: dict) -> bool:
    "Whether a reader of the page learns nothing from a code cell: it only imports, or the page does not show it."
    source = "".join(cell["source"])
    if re.match(r"#\|\s*(hide|default_exp)\b", source): return True
    return is_export(cell) and all(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.parse(source).body)


def export_runs(notebooks: Path) -> Iterator[tuple[Path, str, int]]:
    """(notebook, id of the first cell, number of cells) wherever export cells follow each other, with no text and no
    example between them. Cells that import or that the page hides neither count nor separate."""
    for path, cells in notebook_cells(notebooks):
        visible = [c for c in cells if c["cell_type"] == "markdown" or not is_silent(c)]
        for exported, run in itertools.groupby(visible, is_export):
            if not exported: continue
            first, *rest = run
            yield path, first.get("id", "?"), 1 + len(rest)


def long_runs(notebooks: Path, most: int) -> list[str]:
    "The places where more than `most` export cells follow each other."
    return [f"{path.relative_to(notebooks)} {cell}: {n} export cells in a row"
            for path, cell, n in export_runs(notebooks) if n > most]


def cell_length(source: str) -> int: return len(source.splitlines()) - 1  # without the line that says `export`


def is_code(source: str) -> bool:
    "Whether a cell defines something; the others are imports and data (wordings, tables, templates)."
    return any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in ast.parse(source).body)


@functools.cache
def places(package: Path, notebooks: Path | None = None) -> dict[str, list[str]]:
    "figure -> the places that count against it."
    out = {name: [] for name in ("long_lines", "nested", "tuples", "poor_names", "undocumented", "cell_max")}
    for path in modules(package):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        tree = ast.parse(source)
        name = path.relative_to(package.parent)
        out["long_lines"] += [f"{name}:{i}" for i, line in enumerate(lines, 1) if len(line) > WIDTH]
        out["nested"] += [f"{name}:{f.lineno} {f.name}" for f in functions(tree) if has_nesting(f)]
        out["tuples"] += [f"{name}:{n.lineno}" for n in ast.walk(tree) if is_tuple_assignment(n)]
        out["poor_names"] += [f"{name}:{n.lineno} {n.id}" for n in assigned_names(tree) if n.id in POOR_NAMES]
        out["undocumented"] += [f"{name}:{n.lineno} {n.name}" for n in tree.body
                                if isinstance(n, ast.FunctionDef) and is_undocumented(n, lines)]
    for path, cell, source in export_cells(notebooks) if notebooks else ():
        if cell_length(source) <= 30 or not is_code(source): continue
        out["cell_max"].append(f"{path.relative_to(notebooks)} {cell}: {cell_length(source)} lines")
    return out


def figures(package: Path, notebooks: Path | None = None) -> dict[str, float]:
    "The figures of `LIMITS` for a package; those of cells only where there are notebooks."
    found = places(package, notebooks)
    sources = [p.read_text(encoding="utf-8") for p in modules(package)]
    trees = [ast.parse(s) for s in sources]
    n_lines = sum(len(s.splitlines()) for s in sources)
    n_functions = sum(len(functions(t)) for t in trees)
    n_names = sum(len(assigned_names(t)) for t in trees)
    out = dict(long_lines=100 * len(found["long_lines"]) / n_lines, nested=100 * len(found["nested"]) / n_functions,
               tuples=1000 * len(found["tuples"]) / n_lines, poor_names=100 * len(found["poor_names"]) / n_names,
               undocumented=len(found["undocumented"]))
    if not notebooks: return out
    cells = [source for _, _, source in export_cells(notebooks)]
    longest = max(cell_length(source) for source in cells if is_code(source))
    return out | dict(cell_median=statistics.median(map(cell_length, cells)), cell_max=longest)


# --- the same lines in two places -------------------------------------------------------------------------------------

MOST_SHARED = 8  # lines


def code_lines(path: Path) -> list[list[tuple[int, str]]]:
    "The lines inside each top-level function or class, as (number, text), without docstrings, comments and blank ones."
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    out = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef): continue
        strings = [n.value for n in ast.walk(node) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
        skipped = {i for s in strings for i in range(s.lineno, s.end_lineno + 1)}
        numbered = [(i, lines[i - 1].strip()) for i in range(node.lineno, node.end_lineno + 1) if i not in skipped]
        out.append([(i, text) for i, text in numbered if text and not text.startswith("#")])
    return out


def shared_lines(paths: list[Path], most: int = MOST_SHARED) -> list[str]:
    "Pairs of places that have more than `most` lines of code in common, one after the other."
    first, out = {}, []
    for path in paths:
        for block in code_lines(path):
            for k in range(len(block) - most):
                window = tuple(text for _, text in block[k:k + most + 1])
                place = f"{path.name}:{block[k][0]}"
                if window in first: out.append(f"{first[window]} and {place}: {window[0]} ...")
                first.setdefault(window, place)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("package", nargs="?", type=Path, help="a folder (default: latent_summ, with its notebooks)")
    parser.add_argument("--where", choices=sorted(places(ROOT / "tests")), help="list the places of a figure")
    parser.add_argument("--runs", action="store_true", help="list the long runs of export cells, over all notebooks")
    options = parser.parse_args()
    package = options.package or ROOT / "latent_summ"
    notebooks = None if options.package else ROOT / "nbs"
    if options.runs: print("\n".join(long_runs(ROOT / "nbs", MOST_IN_A_ROW)))
    elif options.where: print("\n".join(places(package, notebooks)[options.where]))
    else:
        for name, value in figures(package, notebooks).items(): print(f"{name:12} {value:8.2f}   limit {LIMITS[name]}")


if __name__ == "__main__": main()
