"""The row policy over inputs nobody thought of: rows in = rows out + rows reported, and what comes out is fit for everything after."""
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from latent_summ.config import Config
from latent_summ.sources import MAX_TEXT_BYTES, clean_rows, in_validation, load_pairs

awkward = st.one_of(st.none(), st.integers(), st.floats(), st.lists(st.text()), st.text(), st.sampled_from(
    ["", " \r\n", "a\0b", "\ud83d", "\udc00x", "a\r\nb", "same", "same", "\u2028", "\ufeff", "x" * (MAX_TEXT_BYTES + 1), "é" * (MAX_TEXT_BYTES // 2)]))
raw_rows = st.lists(st.one_of(st.none(), st.fixed_dictionaries({}, optional={"id": awkward, "dialogue": awkward, "summary": awkward})), max_size=12)
COLUMNS = {"id": "id", "dialogue": "dialogue", "summary": "summary"}


@settings(max_examples=200, deadline=None)
@given(raw_rows, st.one_of(st.none(), st.integers(0, 5)), st.sampled_from([None, "train", "validation"]))
def test_books_balance_and_rows_are_fit(raw, cap, side):
    keep = side and (lambda i: in_validation(i, 0.5) == (side == "validation"))
    rows = clean_rows(raw, COLUMNS, cap, keep)
    r = rows.report
    assert r["read"] == r["kept"] + sum(r["dropped"].values()) + r["other_split"]
    assert len(rows) == r["kept"] and (cap is None or len(rows) <= cap)
    assert r["read"] == len(raw) or len(rows) == cap
    for row in rows:
        for text in (row["dialogue"], row["summary"]):
            assert text == text.strip() != "" and "\0" not in text and "\r" not in text and len(text.encode()) <= MAX_TEXT_BYTES
    assert len({row["id"] for row in rows}) == len(rows) == len({(row["dialogue"], row["summary"]) for row in rows})
    json.dumps(r)


@settings(max_examples=50, deadline=None)
@given(raw_rows)
def test_cleaning_clean_rows_changes_nothing(raw):
    once = clean_rows(raw, COLUMNS)
    again = clean_rows(once.rows, COLUMNS)
    assert again.rows == once.rows and again.report["dropped"] == {} and again.report["identity"] == once.report["identity"]


def test_a_jsonl_file_with_every_kind_of_bad_line(tmp_path):
    lines = ['{"dialogue": "a", "summary": "b"}', '{"dialogue": null, "summary": "b"}', '{"summary": "b"}', '{"dialogue": 1.5, "summary": "b"}',
             '{"dialogue": "\\ud83d", "summary": "b"}', '{"dialogue": "a\\u0000", "summary": "b"}', "[]", "{", "null", "", '{"dialogue": "a", "summary": "b"}']
    (tmp_path / "bad.train.jsonl").write_text("\n".join(lines))
    (tmp_path / "bad.validation.jsonl").write_text('{"dialogue": "c", "summary": "d"}\n')
    rows = load_pairs(Config(dataset_name=str(tmp_path / "bad")), "train")
    assert [(r["dialogue"], r["summary"]) for r in rows] == [("a", "b")]
    assert rows.report["dropped"] == {"dialogue: NUL character": 1, "dialogue: lone surrogate": 1, "dialogue: missing": 2, "dialogue: not a string": 1,
                                      "duplicate": 1, "not a JSON object": 3}
