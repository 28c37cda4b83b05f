"""The row policy over inputs nobody thought of: rows in = rows out + rows reported, and what comes out is fit for everything after."""
import contextlib
import gzip
import itertools
import json
import lzma
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import pandas as pd
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_summ.config import Config
from latent_summ.data.hub import _read_and_keep, read_book, read_kept
from latent_summ.runtime import DataError
from latent_summ.data.rows import MAX_TEXT_BYTES
from latent_summ.data.sources import clean_rows, in_validation, load_pairs, load_texts, shared_dialogues

ROOT = Path(__file__).resolve().parent.parent

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
    assert len({row["id"] for row in rows}) == len(rows) == len({(row["dialogue"], row["summary"], *row.get("summaries", ())) for row in rows})
    json.dumps(r)


@settings(max_examples=50, deadline=None)
@given(raw_rows)
def test_cleaning_clean_rows_changes_nothing(raw):
    once = clean_rows(raw, COLUMNS)
    again = clean_rows(once.rows, COLUMNS | {"summary": ["summary", "summaries"]})
    assert list(again) == list(once) and again.report["dropped"] == {} and again.report["identity"] == once.report["identity"]


def test_a_jsonl_file_with_every_kind_of_bad_line(tmp_path):
    lines = ['{"dialogue": "a", "summary": "b"}', '{"dialogue": null, "summary": "b"}', '{"summary": "b"}', '{"dialogue": 1.5, "summary": "b"}',
             '{"dialogue": "\\ud83d", "summary": "b"}', '{"dialogue": "a\\u0000", "summary": "b"}', "[]", "{", "null", "", '{"dialogue": "a", "summary": "b"}']
    (tmp_path / "bad.train.jsonl").write_text("\n".join(lines))
    (tmp_path / "bad.validation.jsonl").write_text('{"dialogue": "c", "summary": "d"}\n')
    rows = load_pairs(Config(dataset_name=str(tmp_path / "bad")), "train")
    assert [(r["dialogue"], r["summary"]) for r in rows] == [("a", "b")]
    assert rows.report["dropped"] == {"dialogue: NUL character": 1, "dialogue: lone surrogate": 1, "dialogue: missing": 2, "dialogue: not a string": 1,
                                      "duplicate": 1, "not a JSON object": 3}


@settings(max_examples=100, deadline=None)
@given(raw_rows)
def test_two_sides_are_the_whole(raw):
    "Whatever is in a source without a validation split: no row is on both sides, none is lost, and neither are its dialogue and summary."
    whole, sides = clean_rows(raw, COLUMNS), [clean_rows(raw, COLUMNS, keep=lambda i, side=side: in_validation(i, 0.5) == side) for side in (False, True)]
    texts = lambda rows: sorted((r["dialogue"], r["summary"], *r.get("summaries", ())) for r in rows)
    assert sorted(texts(sides[0]) + texts(sides[1])) == texts(whole)
    assert all(s.report["dropped"] == whole.report["dropped"] and s.report["other_split"] == len(whole) - len(s) for s in sides)


@settings(max_examples=100, deadline=None)
@given(raw_rows)
def test_rows_without_ids_do_not_care_for_order(raw):
    columns = COLUMNS | {"id": None}
    forth, back = clean_rows(raw, columns), clean_rows(raw[::-1], columns)
    by_id = lambda rows: {r["id"]: (r["dialogue"], r["summary"], *r.get("summaries", ())) for r in rows}
    assert by_id(forth) == by_id(back) and len(by_id(forth)) == len(forth)


def test_an_id_that_all_rows_share_costs_no_time_and_no_row():
    rows = clean_rows((dict(id=0, text=f"text {i}") for i in range(5000)), {"id": "id", "text": "text"})
    assert len(rows) == len({r["id"] for r in rows}) == 5000 and rows[-1]["id"] == "0#5000" and rows.report["renamed_ids"] == 4999


# --- files ------------------------------------------------------------------------------------------------------------

PAIRS = [dict(id=str(i), dialogue=f"Ann: hi {i}, \"you\"\u2028\nBob: hé\t\U0001f600, {i}", summary=f"They greet {i}; 'NA'.") for i in range(7)]
PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
CONTENT = {"jsonl": lambda f: "\n".join(json.dumps(r, ensure_ascii=False) for r in PAIRS).encode(),
           "ndjson": lambda f: "\r\n".join(map(json.dumps, PAIRS)).encode(),
           "json": lambda f: json.dumps(PAIRS, indent=1).encode(),
           "csv": lambda f: f.to_csv(index=False).encode(),
           "tsv": lambda f: f.to_csv(index=False, sep="\t").encode(),
           "parquet": lambda f: f.to_parquet()}


@pytest.mark.parametrize("ending", [f"{k}{p}" for k, p in itertools.product(CONTENT, PACK) if k != "parquet" or not p])
def test_every_format_gives_the_same_rows(ending, tmp_path):
    kind, _, packed = ending.partition(".")
    content = PACK[f".{packed}" if packed else ""](CONTENT[kind](pd.DataFrame(PAIRS)))
    for split in ("train", "validation"): (tmp_path / f"chats.{split}.{ending}").write_bytes(content)
    assert list(load_pairs(Config(dataset_name=str(tmp_path / "chats")))) == PAIRS
    (tmp_path / f"chats.train.{ending}").write_bytes(content[:len(content) // 2] if packed or kind == "parquet" else b"\xff\xfe" + content[:len(content) // 2 * 2 - 1])
    with pytest.raises(DataError, match=f"Cannot read .*chats.train.{ending}"): load_pairs(Config(dataset_name=str(tmp_path / "chats")))


def test_a_txt_file_is_a_text_a_line(tmp_path):
    for ending, pack in PACK.items(): (tmp_path / f"lines.txt{ending}").write_bytes(pack("one\r\n\n two é \nthree".encode()))
    for ending in PACK:
        assert {r["text"] for split in ("train", "validation") for r in load_texts(Config(preprocess_validation_fraction=0.4), str(tmp_path / f"lines.txt{ending}"), split)} == {
            "one", "two é", "three"}


def test_local_parquet_reads_only_what_is_used(tmp_path):
    "A column that cannot even be read does no harm when nobody asked for it."
    import pyarrow as pa
    import pyarrow.parquet as pq
    path = tmp_path / "papers.parquet"
    pq.write_table(pa.table(dict(abstract=[f"abstract {i}" for i in range(500)], embeddings=[[float(i)] * 64 for i in range(500)])), path, row_group_size=100)
    chunk = pq.ParquetFile(path).metadata.row_group(4).column(1)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset:chunk.data_page_offset + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(OSError): pq.read_table(path)
    assert len(load_texts(Config(), str(path))) + len(load_texts(Config(), str(path), "validation")) == 500


RSS = """
import sys
from latent_summ.data.sources import clean_rows
peak = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
before = peak()
rows = clean_rows((dict(text=f"This is short text number {i}.") for i in range(int(sys.argv[1]))), {"id": None, "text": "text"})
assert sum(1 for _ in rows) == len(rows) == int(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_rows():
    grown = [float(subprocess.run([sys.executable, "-c", RSS, n], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True).stdout)
             for n in ("10000", "100000")]
    assert grown[1] < grown[0] + 4, f"{grown} MB: a list of 100,000 such rows takes about 40"


# --- what is kept of a stream -----------------------------------------------------------------------------------------

@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=4), st.integers(1, 5), st.integers(1, 1300))
def test_a_stream_read_in_pieces_is_the_stream(stops, shards, n):
    "Readers that stop anywhere, one after another: the last gets every row once, in order, and none twice from the stream."
    texts = [f"text {i}" for i in range(n)]
    stream = lambda: datasets.Dataset.from_dict(dict(text=texts)).to_iterable_dataset(num_shards=min(shards, n))
    with tempfile.TemporaryDirectory() as folder:
        for stop in [*stops, None, None]:
            book = read_book(Path(folder))
            rows = [r["text"] for r in read_kept(Path(folder), book)]
            if not book["complete"]:
                with contextlib.closing(_read_and_keep(Path(folder), book, stream())) as rest: rows += [r["text"] for r in itertools.islice(rest, stop)]
            assert rows == texts[:len(rows)]
        assert rows == texts and read_book(Path(folder))["complete"]


# --- real data --------------------------------------------------------------------------------------------------------

DATA = os.environ.get("LATENT_SUMM_DATA")
KNOWN = {"samsum": (14732, {"dialogue: empty": 1, "duplicate": 1}, 818, 47), "dialogsum": (12460, {}, 500, 51), "mtsdialog": (1201, {"duplicate": 1}, 100, 2)}


@pytest.mark.skipif(not DATA, reason="LATENT_SUMM_DATA names no folder with real data")
@pytest.mark.parametrize("name", KNOWN)
def test_real_dialogues(name):
    read, dropped, held_out, shared = KNOWN[name]
    train, validation = (load_pairs(Config(dataset_name=f"{DATA}/{name}"), split) for split in ("train", "validation"))
    assert (train.report["read"], train.report["dropped"], len(train), len(validation)) == (read, dropped, read - sum(dropped.values()), held_out)
    assert len(shared_dialogues(validation, train)) == shared


@pytest.mark.skipif(not DATA, reason="LATENT_SUMM_DATA names no folder with real data")
@pytest.mark.parametrize(("name", "column", "rows"), [("arxiv", "abstract", 24000), ("wikipedia", "text", 14000), ("prose", "text", 15000)])
def test_real_texts(name, column, rows):
    sides = [load_texts(Config(), f"{DATA}/{name}.jsonl.xz", split) for split in ("train", "validation")]
    assert all(s.report["read"] == rows and s.report["columns"]["text"] == column and s.report["dropped"] == {} for s in sides)
    assert sum(map(len, sides)) == rows and abs(len(sides[1]) / rows - 0.05) < 0.005
