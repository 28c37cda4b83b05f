"""Whatever people bring: every file is the rows that the person meant, the same for every command, or one clear message."""
import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from latent_summ import runtime
from latent_summ.config import Config
from latent_summ.data.formats import look_at, numbered_rows, rows_as_bytes
from latent_summ.data.fields import find_column, id_text, join_turns
from latent_summ.data.sources import input_rows, load_pairs, load_texts
from latent_summ.data.local import local_files
from latent_summ.runtime import DataError
from latent_summ.ui.inputs import Need, check_local_source
from latent_summ.use.evaluate import evaluate_predictions, whole_file
from latent_summ.use.facts import references_of
from latent_summ.use.scores import merge_references
from latent_summ.use.predictions import read_predictions

CASES = Path(__file__).parent / "cases"
WHOLE = 1e-9 # so small a share of held-out rows that there are none


# --- one table: forms x packing x commands ----------------------------------------------------------------------------

ROWS = [dict(id="007", dialogue="Åsa: \"so\", he said; yes\tno\nBen: 'ok', 45", summary="Åsa agrees."), dict(id="9007199254740993", dialogue="Ann: NA", summary="null"),
        dict(id="1e3", dialogue="Ann: 1\nBob: 2", summary="They count; twice.")]
TURNS = {"007": [["Åsa", "\"so\", he said; yes no"], ["Ben", "'ok', 45"]], "9007199254740993": [["Ann", "NA"]], "1e3": [["Ann", "1"], ["Bob", "2"]]}
JOINED = [dict(r, dialogue="\n".join(f"{who}: {what}" for who, what in TURNS[r["id"]])) for r in ROWS]


def table(rows, encoding="utf-8", first="", **options):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return (first + out.getvalue()).encode(encoding)


def lines(rows): return "".join(json.dumps(r) + "\n" for r in rows).encode()


def parquet(rows):
    out = io.BytesIO()
    pd.DataFrame(rows).to_parquet(out)
    return out.getvalue()


FORMS = {"r.jsonl": lines, "R.JSONL": lines, "r.ndjson": lines, "really-lines.json": lines, "lines.txt": lines, "lines": lines,
         "lf.jsonl": lambda rows: "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in rows).encode("utf-8-sig"),
         "r.json": lambda rows: json.dumps(rows, indent=1).encode(), "one-line.json": lambda rows: json.dumps(rows).encode(),
         "array.jsonl": lambda rows: json.dumps(rows, ensure_ascii=False).encode("utf-16"), "inside.json": lambda rows: json.dumps(dict(version=2, data=rows)).encode(),
         "columns.json": lambda rows: json.dumps({k: {str(i): r[k] for i, r in enumerate(rows)} for k in rows[0]}).encode(),
         "by-id.json": lambda rows: json.dumps({r["id"]: {k: v for k, v in r.items() if k != "id"} for r in rows}).encode(),
         "r.csv": table, "R.CSV": table, "quoted.csv": lambda rows: table(rows, quoting=csv.QUOTE_ALL), "unix.csv": lambda rows: table(rows, lineterminator="\n"),
         "semicolon.csv": lambda rows: table(rows, delimiter=";"), "tab.csv": lambda rows: table(rows, delimiter="\t"), "pipe.csv": lambda rows: table(rows, delimiter="|"),
         "sep.csv": lambda rows: table(rows, first="sep=;\r\n", delimiter=";"), "single.csv": lambda rows: table(rows, quotechar="'"),
         "escaped.csv": lambda rows: table(rows, doublequote=False, escapechar="\\"), "windows.csv": lambda rows: table(rows, "cp1252", delimiter=";"),
         "mark.csv": lambda rows: table(rows, "utf-8-sig"), "wide.csv": lambda rows: table(rows, "utf-16"), "r.tsv": lambda rows: table(rows, delimiter="\t"),
         "table.txt": lambda rows: table(rows, delimiter="\t"), "r.parquet": parquet, "pretty.jsonl": lambda rows: "\n".join(json.dumps(r, indent=1) for r in rows).encode(),
         "close.json": lambda rows: "".join(map(json.dumps, rows)).encode(), "commas.jsonl": lambda rows: ",\n".join(map(json.dumps, rows)).encode(),
         "deep.json": lambda rows: json.dumps(dict(result=dict(rows=rows))).encode(), "quoted-hint.csv": lambda rows: table(rows, first='"sep=|"\n', delimiter="|")}
def zipped(content, name="rows"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(f"{name}.csv", content)
        z.writestr("__MACOSX/._rows", b"\0")
    return out.getvalue()


PACK = {"": bytes, ".gz": gzip.compress, ".XZ": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress, ".Zip": zipped}


def as_trained(path): return list(load_pairs(Config(dataset_name=str(path), preprocess_validation_fraction=WHOLE)))


def as_evaluated(path): return list(load_pairs(whole_file(Config(dataset_name=str(path))), "test"))


def as_summarised(path): return input_rows(path, Config())[0]


def checked(path, kind="pairs", **changes):
    field = "dataset_name" if kind == "pairs" else "wikitext_dataset"
    return check_local_source(Config(**{field: str(path)} | changes), Need(field, str(path), kind, None, True))


@pytest.mark.parametrize("name", [name + end for name, end in itertools.product(FORMS, PACK)])
def test_the_same_rows_from_each(name, tmp_path):
    end = next(e for e in (".gz", ".XZ", ".bz2", ".zst", ".Zip", "") if name.endswith(e))
    path = tmp_path / name
    path.write_bytes(PACK[end](FORMS[name.removesuffix(end)](ROWS)))
    assert as_trained(path) == as_evaluated(path) == ROWS
    assert as_summarised(path) == [(r["id"], r["dialogue"], None) for r in ROWS]
    assert read_predictions(path) == {r["id"]: r["summary"] for r in ROWS}
    assert checked(path).status == "ok"


@pytest.mark.parametrize("turn", [lambda who, what: dict(speaker=who, text=what), lambda who, what: dict(role=who, content=what), lambda who, what: {"from": who, "value": what}])
@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.parquet", "r.csv", "semicolon.csv"])
def test_turns_are_joined(name, turn, tmp_path):
    "In tables they stand as JSON."
    rows = [dict(r, dialogue=[turn(*pair) for pair in TURNS[r["id"]]]) for r in ROWS]
    if name.endswith("csv"): rows = [dict(r, dialogue=json.dumps(r["dialogue"])) for r in rows]
    path = tmp_path / name
    path.write_bytes(FORMS[name](rows))
    assert as_trained(path) == as_evaluated(path) == JOINED and checked(path).status == "ok"
    assert as_summarised(path) == [(r["id"], r["dialogue"], None) for r in JOINED]


NUMPY = "[{'speaker': 'Åsa', 'text': 'hi'}\n {'speaker': 'Ben', 'text': \"it's ok\"}]"


@pytest.mark.parametrize(("dialogue", "want"), [(repr([dict(speaker="Åsa", text="hi"), dict(speaker="Ben", text="it's ok")]), None), (NUMPY, None),
                                                (repr([("Åsa", "hi"), ("Ben", "it's ok")]), None), (repr(["Åsa: hi", "Ben: it's ok"]), None),
                                                (json.dumps(["Åsa: hi", "Ben: it's ok"]), None), (json.dumps([{"Åsa": "hi"}, {"Ben": "it's ok"}]), None),
                                                ("[sighs] Åsa: hi", "[sighs] Åsa: hi"), ("[1] not a list", "[1] not a list"), ("[1, 2]", "[1, 2]")])
def test_lists_that_stand_in_a_table_as_text(dialogue, want, tmp_path):
    "As pandas writes them, too. What only looks like a list stays a text."
    (tmp_path / "r.csv").write_bytes(table([dict(id="1", dialogue=dialogue, summary="['A.', \"B's.\"]")]))
    (row,) = as_trained(tmp_path / "r.csv")
    assert row["dialogue"] == (want or "Åsa: hi\nBen: it's ok") and row["summaries"] == ["A.", "B's."]


@pytest.mark.parametrize("turn", [dict(speaker="A", text=["one", "two"]), dict(speaker="A", text=["one", dict(type="bold", text="two")]), {"A": "one two"}])
def test_no_part_of_a_turn_is_lost(turn): assert join_turns([turn]) == ("A: one two", None)


@pytest.mark.parametrize("name", ["messages", "conversations", "turns", "meeting_transcripts", "chat_messages", "segments"])
def test_usual_columns_of_turns_are_found(name, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({name: [dict(speaker="Ann", content="hi")], "summary": "Ann greets."}))
    assert [r["dialogue"] for r in as_trained(path)] == ["Ann: hi"] == [text for _, text, _ in as_summarised(path)]


def test_turns_of_unknown_keys_are_refused_with_the_keys_that_were_tried(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(dict(dialogue=[dict(who="Ann", what="hi")], summary="x")))
    with pytest.raises(DataError, match="keys who, what: tried speaker, role, from, .* and text, content, value"): as_trained(path)
    assert checked(path).status == "fail" and "tried speaker" in checked(path).text
    assert "tried speaker" in as_summarised(path)[0][2]


# --- tables with a message in each row ---------------------------------------------------------------------------------

SAID = [("maya", "2024-03-12T18:02:00", "hi, Tom"), ("tom", "2024-03-12T18:03:00", "yes"), ("maya", "2024-03-13T09:00:00", "good morning")]
TALKS = [["maya: hi, Tom", "tom: yes"], ["maya: good morning"]]
NAMES = [("Author", "Date", "Content"), ("sender", "timestamp", "message"), ("UserName", "Timestamp", "Text"), ("Name", "Time", "Message"), ("from", "sent_at", "body")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("form", ["r.csv", "semicolon.csv", "wide.csv", "r.tsv", "r.jsonl", "r.json"])
def test_tables_of_messages_are_conversations(form, names, tmp_path, capsys):
    (tmp_path / form).write_bytes(FORMS[form]([dict(zip(names, row)) for row in SAID]))
    runtime._said.clear()
    want = ["\n".join(lines) for lines in TALKS]
    assert [text for _, text, _ in as_summarised(tmp_path / form)] == want
    assert [r["text"] for r in load_texts(Config(preprocess_validation_fraction=WHOLE), str(tmp_path / form))] == want
    assert "3 messages in 2 conversations" in capsys.readouterr().err
    asked = load_texts(Config(preprocess_validation_fraction=WHOLE, text_column=names[2]), str(tmp_path / form))
    assert [r["text"] for r in asked] == [text for _, _, text in SAID]


def test_rows_of_one_dialogue_belong_together(tmp_path):
    (tmp_path / "r.csv").write_text("dialogue_id,speaker,text\nd1,Ann,hi\nd2,Cy,ok\nd1,Bob,yes\n")
    assert as_summarised(tmp_path / "r.csv") == [("d1", "Ann: hi\nBob: yes", None), ("d2", "Cy: ok", None)]


@pytest.mark.parametrize("header", ["id,text", "author,date,title,text", "user,text,label", "name,message", "speaker,text,summary"])
def test_other_tables_are_left_alone(header, tmp_path):
    width = len(header.split(","))
    (tmp_path / "r.csv").write_text(header + "\n" + "".join(",".join(f"{letter}{n}" for n in range(width)) + "\n" for letter in "abcd"))
    assert look_at(tmp_path / "r.csv").kind == "csv"


# --- the cases --------------------------------------------------------------------------------------------------------

FOUR = ["UPPER.JSONL", "list-of-references.jsonl", "really-jsonl.json", "rows.csv.gz", "rows.json", "semicolon.csv", "tab-separated.csv", "turns.jsonl", "utf-16.csv",
                        "windows-1252.csv"]


@pytest.mark.parametrize("name", FOUR)
def test_cases_of_four_rows(name):
    rows = as_trained(CASES / name)
    assert [r["id"] for r in rows] == ["c1", "c2", "c3", "c4"] and rows == as_evaluated(CASES / name) and checked(CASES / name).status == "ok"
    assert rows[3]["dialogue"].startswith("Nils: the train from Malmö is late again\nÅsa: then we skip the café")
    assert [text for _, text, _ in as_summarised(CASES / name)] == [r["dialogue"] for r in rows]


def test_case_ids_and_na():
    rows = as_trained(CASES / "ids-and-na.csv")
    assert [r["id"] for r in rows[:1] + rows[2:]] == ["007", "9007199254740993", "1e3"] and len(rows[1]["id"]) == 16
    assert (rows[2]["dialogue"], rows[2]["summary"]) == ("NA", "null")
    assert [i for i, *_ in as_summarised(CASES / "ids-and-na.csv")] == ["007", "2", "9007199254740993", "1e3"]


@pytest.mark.parametrize("read", [as_trained, as_evaluated, as_summarised])
def test_case_one_comma_too_many(read):
    with pytest.raises(DataError, match="one-comma-too-many.csv, line 2 has 4 columns, its header 3"): read(CASES / "one-comma-too-many.csv")
    assert checked(CASES / "one-comma-too-many.csv").status == "fail"


def test_case_other_columns():
    path = CASES / "other-columns.csv"
    with pytest.raises(DataError, match=r"\(no name\), conversation, abstract. Name the right ones with --dialogue-column and --summary-column"): as_trained(path)
    named = Config(dataset_name=str(path), dialogue_column="conversation", summary_column="abstract", preprocess_validation_fraction=WHOLE)
    assert len(load_pairs(named)) == 4 and len(input_rows(path, named)[0]) == 4


@pytest.mark.parametrize(("name", "number"), [("three-references.jsonl", 3), ("list-of-references.jsonl", 2)])
def test_case_references(name, number):
    rows = as_evaluated(CASES / name)
    given = [json.loads(line) for line in (CASES / name).read_text().splitlines()]
    want = [[r[f"summary{i}"] for i in (1, 2, 3)] if number == 3 else r["summary"] for r in given]
    assert [references_of(r) for r in rows] == want
    assert len(evaluate_predictions(rows, [r["summary"] for r in rows])["by_reference"]) == number
    if number == 3:
        named = Config(dataset_name=str(CASES / name), summary_column="summary3,summary1", preprocess_validation_fraction=WHOLE)
        assert [references_of(r) for r in load_pairs(named)] == [[w[2], w[0]] for w in want] and rows[0]["id"] == "row_c1"


def test_case_brackets():
    assert all("WRONG" not in r["dialogue"] for r in as_trained(CASES / "brackets" / "chats[1].csv") + as_evaluated(CASES / "brackets" / "chats[1].csv"))
    with pytest.raises(DataError, match="No such file"): as_trained(CASES / "brackets" / "chats*.csv")


def test_case_split_by_name():
    cfg = Config(dataset_name=str(CASES / "split-by-name"))
    assert {split: [r["id"] for r in load_pairs(cfg, split)] for split in ("train", "validation", "test")} == {"train": ["c1", "c2"], "validation": ["c3"], "test": ["c4"]}


@pytest.mark.parametrize(("name", "turns"), [("whatsapp-android.txt", 3), ("whatsapp-ios.txt", 3), ("slack-channel-day.json", 3), ("meeting.vtt", 2)])
def test_case_exports(name, turns):
    (row,) = load_texts(Config(preprocess_validation_fraction=WHOLE), str(CASES / name))
    assert len(row["text"].splitlines()) == turns and [text for _, text, _ in as_summarised(CASES / name)] == [row["text"]]
    assert checked(CASES / name, "texts").status == "ok"


# --- what was silently wrong ------------------------------------------------------------------------------------------

def test_equal_references_stay_when_rows_are_merged(tmp_path):
    rows = [dict(dialogue="Ann: hi", summary=s) for s in ("One.", "Two.", "One.")]
    (tmp_path / "r.jsonl").write_bytes(lines(rows))
    cfg = whole_file(Config(dataset_name=str(tmp_path / "r.jsonl")))
    (row,) = merge_references(load_pairs(cfg, "test", duplicates=True))
    assert references_of(row) == ["One.", "Two.", "One."]


@pytest.mark.parametrize(("references", "want"), [(["A.", "A.", "B."], ["A.", "A.", "B."]), (["B.", "C."], ["A.", "B.", "C."]), ("a note", ["A."]), ([], ["A."])])
def test_a_references_list_beside_a_summary(references, want, tmp_path):
    (tmp_path / "r.jsonl").write_bytes(lines([dict(dialogue="Ann: hi", summary="A.", references=references)]))
    assert [references_of(r) for r in as_trained(tmp_path / "r.jsonl")] == [want]


def test_a_repeated_id_is_told_and_a_missing_one_is_valid_json(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("id,dialogue,summary\na,Ann: 1,x\na,Ann: 2,y\n,Ann: 3,z\n")
    rows = as_trained(tmp_path / "r.csv")
    assert [r["id"] for r in rows[:2]] == ["a", "a#2"] and "repeated ids: 1; those of later rows end in #2" in capsys.readouterr().err
    assert "NaN" not in json.dumps(rows, allow_nan=False)
    frame = pd.DataFrame([dict(id=7, dialogue="Ann: 1", summary="x"), dict(id=None, dialogue="Ann: 2", summary="y")])
    frame.to_parquet(tmp_path / "r.parquet")
    json.dumps(as_trained(tmp_path / "r.parquet"), allow_nan=False)
    json.dumps(as_summarised(tmp_path / "r.parquet"), allow_nan=False)


@pytest.mark.parametrize("value", [pd.Timestamp("2026-01-02 03:04"), b"\xff\x00raw", 9007199254740993, 1.5, True, float("nan"), None, pd.NaT, [1], "\ud800"])
def test_ids_of_any_type_are_text(value):
    text = id_text(value)
    assert text is None or isinstance(text, str) and text.encode()


def test_columns_called_facts_and_kind_are_left_alone(tmp_path):
    (tmp_path / "r.csv").write_text("dialogue,summary,facts,kind\nAnn: 1,x,many,odd\n")
    assert set(as_trained(tmp_path / "r.csv")[0]) == {"id", "dialogue", "summary"}


@pytest.mark.parametrize(("columns", "want"), [(("summary", "summary2", "summary3"), 3), (("summary", "summary.1"), 2), (("reference_1", "reference_2"), 2), (("ref1", "ref2"), 2),
                                               (("summary1", "summary2", "summary10"), 3)])
def test_numbered_references_are_all_read(columns, want, tmp_path):
    texts = [f"S {i}." for i in range(want - 1)] + ["S 0."]
    (tmp_path / "r.csv").write_bytes(table([dict(id="1", dialogue="Ann: hi", **dict(zip(columns, texts)))]))
    assert [references_of(r) for r in as_trained(tmp_path / "r.csv")] == [texts]


@pytest.mark.parametrize("references", [[dict(text="A."), dict(text="B."), dict(text="A.")], ["A.", "B.", "A."], [dict(summary="A."), dict(summary="B."), dict(summary="A.")]])
def test_references_in_objects(references, tmp_path):
    (tmp_path / "r.jsonl").write_bytes(lines([dict(dialogue="Ann: hi", references=references)]))
    assert [references_of(r) for r in as_trained(tmp_path / "r.jsonl")] == [["A.", "B.", "A."]]


def test_ids_of_a_column_with_gaps_are_those_of_a_csv(tmp_path):
    pd.DataFrame(dict(id=[7, None, 12], dialogue=["Ann: 1", "Ann: 2", "Ann: 3"], summary=["x", "y", "z"])).to_parquet(tmp_path / "r.parquet")
    assert [r["id"] for r in as_trained(tmp_path / "r.parquet")][::2] == ["7", "12"]
    assert [id_text(value) for value in (1e3, 2.5, 2.0**53, -0.0, float("inf"))] == ["1000", "2.5", "9007199254740992.0", "0", "inf"]


def test_short_rows_are_told(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("id,dialogue,summary\na,Ann: hi\nb,Bob: yo,x\nc,Cy: no\n")
    runtime._said.clear()
    assert [r["id"] for r in as_trained(tmp_path / "r.csv")] == ["b"]
    said = capsys.readouterr().err
    assert "fewer columns than the header: 2 (the first in line 2)" in said and "2 of 3 rows dropped: 2 summary: missing" in said


def test_two_encodings_in_one_file_are_an_error_with_the_line(tmp_path):
    for end in ("2,Åsa: no,T\n".encode("cp1252"), "2,Bob: é".encode()[:-1]):
        (tmp_path / "r.csv").write_bytes("id,dialogue,summary\n1,Zoë: hi,S\n".encode() + end)
        for read in (as_trained, as_evaluated, as_summarised):
            with pytest.raises(DataError, match="r.csv, line 3 is not UTF-8, as other lines are"): read(tmp_path / "r.csv")


PAGES = {"messages.html": ("<!DOCTYPE html>\n<html><body>hi</body></html>", "a web page .*choose that"), "sms.xml": ("<?xml version='1.0'?><smses/>", "XML. Export it"),
         "x.ass": ("[Script Info]\nTitle: x\n", "subtitles in ASS. Save them as .srt")}


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_refused_with_the_next_step(name, tmp_path):
    content, message = PAGES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message): as_summarised(tmp_path / name)
    (tmp_path / "ChatExport").mkdir()
    (tmp_path / "ChatExport" / "messages.html").write_text(content)
    with pytest.raises(DataError, match=re.escape("web pages (HTML): export the chat as JSON")): as_summarised(tmp_path / "ChatExport")


@pytest.mark.parametrize(("name", "content", "message"), [
    ("h.csv", "id,dialogue,summary\n", "h.csv holds no rows"), ("e.json", "[]", "e.json holds no rows"), ("e.jsonl", "", "e.jsonl holds no rows"),
    ("n.csv", "1,Ann: hi,S.\n2,Bob: yo,T.\n", "If the first line is a row already, put a line with names above it"),
    ("s.json", json.dumps(dict(name="Zoo", type="x", messages=[dict(type="service", date="2024-03-12T18:00:00")])), "no message that a person wrote")])
def test_files_without_rows_say_so(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message): as_summarised(tmp_path / name)


def test_chats_without_summaries_are_not_trained_as_pairs():
    with pytest.raises(DataError, match="holds texts without summaries. Summarise them with `latent_summ summarize --input`"): as_trained(CASES / "whatsapp-ios.txt")


def test_what_is_no_text_is_said_to_be_none(tmp_path):
    for name, start in {"a.xlsx": b"PK\x03\x04", "a.pdf": b"%PDF-1.7", "a.csv": b"\xd0\xcf\x11\xe0"}.items():
        (tmp_path / name).write_bytes(start + bytes(100))
        for read in (as_trained, as_summarised):
            with pytest.raises(DataError, match=name): read(tmp_path / name)


# --- round trips ------------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=30)
latin = st.text(st.sampled_from("abc XYZ 09,;|\t\"'\n:.!?éÅöñ"), max_size=30)
SEPARATORS = ",;\t|"


def rows_of(texts): return st.lists(st.fixed_dictionaries(dict(id=texts, dialogue=texts, summary=texts)), min_size=1, max_size=6)


def read_back(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return [row for _, row in numbered_rows(look_at(path))]


@settings(max_examples=300, deadline=None)
@given(rows=rows_of(words), separator=st.sampled_from(SEPARATORS), quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
       encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]), end=st.sampled_from(["\n", "\r\n"]), pack=st.sampled_from(list(PACK)))
def test_tables_come_back(tmp_path_factory, rows, separator, quoting, encoding, end, pack):
    content = PACK[pack](table(rows, encoding, delimiter=separator, quoting=quoting, lineterminator=end))
    assert read_back(tmp_path_factory.getbasetemp(), f"t.csv{pack}", content) == rows


@settings(max_examples=150, deadline=None)
@given(rows=rows_of(latin), separator=st.sampled_from(SEPARATORS), quote=st.sampled_from("\"'"))
def test_tables_with_other_quotes_come_back(tmp_path_factory, rows, separator, quote):
    assert read_back(tmp_path_factory.getbasetemp(), "q.csv", table(rows, delimiter=separator, quotechar=quote, quoting=csv.QUOTE_ALL)) == rows


@settings(max_examples=200, deadline=None)
@given(rows=rows_of(words), shape=st.sampled_from(["r.jsonl", "lines.json", "r.json", "one.json", "array.jsonl"]), ascii=st.booleans(),
       encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_json_comes_back(tmp_path_factory, rows, shape, ascii, encoding):
    by_line = shape in ("r.jsonl", "lines.json")
    text = "".join(json.dumps(r, ensure_ascii=ascii) + "\n" for r in rows) if by_line else json.dumps(rows, ensure_ascii=ascii, indent=1 if shape == "r.json" else None)
    assert read_back(tmp_path_factory.getbasetemp(), shape, text.encode(encoding)) == rows


@settings(max_examples=100, deadline=None)
@given(rows=rows_of(words), name=st.sampled_from(["o.csv", "o.tsv", "o.json", "o.jsonl", "o.parquet", "O.JSONL.GZ", "o.csv.xz", "o.txt"]))
def test_what_is_written_comes_back(tmp_path_factory, rows, name):
    assert read_back(tmp_path_factory.getbasetemp(), name, rows_as_bytes(rows, name)) == rows


@settings(max_examples=150, deadline=None)
@given(header=st.integers(1, 5), extra=st.integers(1, 3), before=st.integers(0, 4), separator=st.sampled_from(SEPARATORS))
def test_a_row_with_more_fields_is_always_an_error(tmp_path_factory, header, extra, before, separator):
    assume(header > 1 or separator == ",")
    names = ["id", "dialogue", "summary", "topic", "note"][:header] if header > 1 else ["dialogue", "summary"]
    rows = [names, *[["x"] * len(names)] * before, ["x"] * (len(names) + extra), ["x"] * len(names)]
    path = tmp_path_factory.getbasetemp() / "ragged.csv"
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=f"ragged.csv, line {before + 2} has {len(names) + extra} columns, its header {len(names)}"): list(numbered_rows(look_at(path)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(st.characters(categories=["L"]), min_size=1, max_size=8), st.text(max_size=20)), min_size=1, max_size=5))
def test_turns_keep_who_said_what(turns):
    said = [(who, " ".join(what.split())) for who, what in turns if what.split()]
    text, reason = join_turns([dict(speaker=who, text=what) for who, what in turns])
    assert reason is None and text.split("\n") == ([f"{who}: {what}" for who, what in said] or [""])


def test_files_and_columns_are_found_by_name_alone(tmp_path):
    for name in ("st*r.csv", "star.csv", "q?.csv", "qa.csv", "[ab].csv", "a.csv"): (tmp_path / name).write_text(f"dialogue,summary\nAnn: {name},x\n")
    for name in ("st*r.csv", "q?.csv", "[ab].csv"):
        assert [r["dialogue"] for r in as_trained(tmp_path / name)] == [f"Ann: {name}"] == [text for _, text, _ in as_summarised(tmp_path / name)]
        assert [f.path.name for files in local_files(str(tmp_path / name), Config()).values() for f in files] == [name]
    assert find_column(["Summary", "SUMMARY"], ["summary"]) is None and find_column(["Summary"], ["summary"]) == "Summary"
