"""What signatures show: nbdev links backticked names there, inside <pre>, where they are read as raw markdown."""
import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def quoted(source: str) -> list[str]:
    "Comments with backticks inside the signatures of a module."
    rows = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef): rows |= set(range(node.lineno, max(node.lineno + 1, node.body[0].lineno)))
    comments = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    return [t.string for t in comments if t.start[0] in rows and "`" in t.string]


@pytest.mark.parametrize("path", sorted((ROOT / "latent_summ").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_docments_have_no_backticks(path):
    assert not quoted(path.read_text(encoding="utf-8"))


def test_a_backtick_is_found():
    assert quoted("def f(\n    a, # of `g`\n): return a\n") == ["# of `g`"]


PARAMETERS = [("run_pipeline", "", "listeners"), ("load_pairs", "", "duplicates"), ("evaluate", "", "split"), ("Config", "override", "changes"), ("Config", "load", "path"),
              ("Summarizer", "summarize", "candidates"), ("Summarizer", "from_pretrained", "revision")]


@pytest.mark.parametrize("owner, method, parameter", PARAMETERS)
def test_a_question_mark_documents_parameters(owner, method, parameter):
    "`?` and `help` show what the docstring says: it names the parameters, with their comments."
    import latent_summ
    symbol = getattr(latent_summ, owner)
    assert re.search(rf"(?m)^- {parameter}: \w", (getattr(symbol, method) if method else symbol).__doc__)
