"""Exactly the named file is read: no pattern, extension or position decides silently; a row with more fields than its header is an error.

Attack: names made of `[ ] * ?` next to files that they would match as patterns, any letter case, every format under the ending of another, rows of unequal
length; through training, evaluation, predictions, `summarize --input`, `reconstruct` and the doctor. Every row must come out, in order, under its id.
"""
import json

import pytest

from latent_summ.config import Config
from latent_summ.data.formats import look_at, numbered_rows, rows_as_bytes
from latent_summ.data.sources import input_rows, load_pairs
from latent_summ.runtime import DataError
from latent_summ.ui import cli, commands
from latent_summ.ui.inputs import Need, check_local_source
from latent_summ.use.evaluate import whole_file
from latent_summ.use.predictions import read_predictions

ALSO = [f"test_formats.py::{n}" for n in ("test_the_same_rows_from_each", "test_turns_are_joined", "test_case_one_comma_too_many", "test_case_brackets", "test_tables_come_back",
                                          "test_json_comes_back", "test_a_row_with_more_fields_is_always_an_error", "test_files_and_columns_are_found_by_name_alone")]
NAMES = ["chats[1]", "st*r", "wh?t", "[!a]", "a b", "{x,y}", "~kept", "%20", "-", "CHATS", "é"]
TWINS = ["chats1", "star", "what", "b", "a", "x", "kept", "chats"] # what a pattern, or careless hands, would read instead
ENDS = [".csv", ".JSONL", ".Json", ".tsv", ".parquet", ".jsonl.GZ"]
ROWS = [dict(id=f"0{i}", dialogue=f"Ann: {i}, said\nBob: \"{i}\"", summary=f"They say {i}.") for i in range(3)]


class Echo:
    "In place of a model: writes what it reads."
    judge = None
    def summarize(self, texts, **options): return list(texts)
    reconstruct = summarize


def write(path, rows): path.write_bytes(rows_as_bytes(rows, path.name.lower()))


def everything(path) -> list:
    "What each command makes of a file."
    cfg = Config(dataset_name=str(path), preprocess_validation_fraction=1e-9)
    return [list(load_pairs(cfg)), list(load_pairs(whole_file(cfg), "test")), read_predictions(path), input_rows(path, cfg)[0],
            check_local_source(cfg, Need("dataset_name", str(path), "pairs", None, True)).status]


@pytest.mark.parametrize("end", ENDS)
def test_a_name_is_never_a_pattern(tmp_path, end, attacks):
    for twin in TWINS: write(tmp_path / f"{twin}{end}", [dict(r, dialogue="WRONG", summary="WRONG") for r in ROWS])
    for name in NAMES:
        path = tmp_path / f"{name}{end}"
        write(path, ROWS)
        assert everything(path) == [ROWS, ROWS, {r["id"]: r["summary"] for r in ROWS}, [(r["id"], r["dialogue"], None) for r in ROWS], "ok"], path
    attacks(5 * len(NAMES))


@pytest.mark.parametrize("shown", ENDS + [".txt", ".log", ""])
@pytest.mark.parametrize("real", [".csv", ".jsonl", ".json", ".parquet", ".csv.xz", ".jsonl.zst"])
def test_the_content_decides(tmp_path, real, shown):
    "A file of one format under the name of another: the same rows. (A table is known by its header there.)"
    path = tmp_path / f"rows{shown}"
    path.write_bytes(rows_as_bytes(ROWS, f"rows{real}"))
    assert [row for _, row in numbered_rows(look_at(path))] == ROWS == everything(path)[0]


@pytest.mark.parametrize("command", ["summarize", "reconstruct"])
@pytest.mark.parametrize("out", ["out.csv", "out.tsv", "out.json", "out.jsonl", "OUT.JSONL.GZ", "out.parquet", None])
def test_rows_and_ids_survive_in_order(tmp_path, monkeypatch, capfd, command, out):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_load", lambda origin, model: Echo())
    given = [json.dumps(r) for r in ROWS] + ['{"id": "broken', json.dumps(dict(id=7, dialogue=None)), json.dumps(dict(dialogue="Eve: ½ 😀\u2028ok"))]
    (tmp_path / "in[1].jsonl").write_text("\n".join(given), encoding="utf-8")
    cli.run_command([command, "--input", "in[1].jsonl", *(["--output", out] if out else [])])
    found = [row for _, row in numbered_rows(look_at(out))] if out else [json.loads(line) for line in capfd.readouterr().out.split("\n") if line]
    assert [r["id"] for r in found] == ["00", "01", "02", "4", "7", "6"]
    key = "summary" if command == "summarize" else "text"
    assert [r[key] for r in found] == [r["dialogue"] for r in ROWS] + ["", "", "Eve: ½ 😀\u2028ok"]
    assert [r.get("error") or None for r in found] == [None] * 3 + ["not a JSON object", "missing", None]


def test_a_file_that_fails_says_so_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_load", lambda origin, model: Echo())
    (tmp_path / "ragged.csv").write_text("id,dialogue\na,Ann: hi\nb,Ann: well, yes\n")
    with pytest.raises(DataError, match="ragged.csv, line 3 has 3 columns, its header 2"):
        cli.run_command(["summarize", "--input", "ragged.csv", "--output", "out.csv"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ragged.csv"]


@pytest.mark.parametrize("output", ["out.xlsx", "OUT.ODS", "out.html"])
def test_an_output_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_load", lambda origin, model: pytest.fail("the model was loaded"))
    write(tmp_path / "in.csv", ROWS)
    with pytest.raises(DataError, match="cannot be written. Write .csv"): cli.run_command(["summarize", "--input", "in.csv", "--output", output])
    with pytest.raises(DataError, match="Cannot write into in.csv"): cli.run_command(["summarize", "--input", "in.csv", "--output", "in.csv/out.csv"])
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_the_home_folder_is_spelled_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(commands, "_load", lambda origin, model: Echo())
    write(tmp_path / "in.csv", ROWS)
    cli.run_command(["summarize", "--input", "in.csv", "--output=~/my results/out.csv"])
    assert len(list(numbered_rows(look_at(tmp_path / "home/my results/out.csv")))) == 3 and not (tmp_path / "~").exists()
