"""Predictions of every format are the rows that the person meant, or one clear message."""
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latent_summ.use import predictions as pr
from latent_summ.runtime import DataError

CASES = Path(__file__).parent / "cases"
TEXTS = ["Tom is at the garage, so Maya will feed the parrot at 6.", "The boiler man comes on Tuesday at 9:30. Lena has a lesson, so Ivo will stay at home.",
         "Peter paid 45 euros for two hours of kayak. Rosa wants it again on Sunday.", "Nils's train is late, so he and Åsa meet at the cinema at 20:15."]
ROWS = [dict(id=f"c{i}", dialogue=f"Tom: hello {i}\nMaya: hi", summary=text) for i, text in enumerate(TEXTS, 1)]
RECORDS = [(row["id"], row["summary"]) for row in ROWS]


def table(separator, id_name="id", name="summary"):
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([(id_name, name), *RECORDS])
    return out.getvalue()


def lines(id_name="id", name="prediction"): return "".join(json.dumps({id_name: i, name: t}) + "\n" for i, t in RECORDS)


FILES = {"p.jsonl": lines(), "P.JSONL": lines("ID"), "p.json": json.dumps([dict(fname=i, output=t) for i, t in RECORDS], indent=1), "really-jsonl.json": lines(),
         "texts.json": json.dumps(TEXTS), "p.csv": table(","), "semicolon.csv": table(";", "ID"), "p.tsv": table("\t", "fname", "generated_summary"),
         "p.txt": "\n".join(TEXTS) + "\n"}


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_is_scored_whole(tmp_path, capsys, name, mark):
    (tmp_path / name).write_bytes(FILES[name].encode(mark))
    report, _, predictions = pr.score_predictions(tmp_path / name, ROWS)
    said = capsys.readouterr().err
    assert predictions == TEXTS and report["rouge1"] == 100 and report["rows"] == dict(evaluated=4, missing=0, extra=0)
    assert "in the order of the 4 rows" in said or "the predictions are those under" in said


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.txt"])
def test_the_cases_score_100(name): assert pr.score_predictions(CASES / name, ROWS)[0]["rouge1"] == 100


SHAPES = {"list.jsonl": "".join(json.dumps(dict(id=i, prediction=[text])) + "\n" for i, text in RECORDS), "pipeline.json": json.dumps([dict(summary_text=text) for text in TEXTS]),
          "strings.jsonl": "".join(json.dumps(text) + "\n" for text in TEXTS), "by-id.json": json.dumps(dict(RECORDS)), "inside.json": json.dumps(dict(model="m",
                                                            predictions=TEXTS)),
          "objects.json": json.dumps(dict(predictions=[dict(id=i, text=text) for i, text in RECORDS])), "last-lines.txt": "\n".join(TEXTS) + "\n\n\n",
          "pandas.csv": ",prediction\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS)), "with-scores.json": json.dumps({i: dict(prediction=t,
                                                            score=1) for i, t in RECORDS})}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_programs_write(tmp_path, name):
    (tmp_path / name).write_text(SHAPES[name], encoding="utf-8")
    assert pr.score_predictions(tmp_path / name, ROWS)[2] == TEXTS


def test_several_candidates_in_one_field_are_named(tmp_path):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(dict(id=i, prediction=[text, "Another."])) + "\n" for i, text in RECORDS))
    with pytest.raises(DataError, match="line 1 has 2 candidates under prediction: 'Tom is .*', 'Another.'. Write the one"): pr.score_predictions(tmp_path / "p.jsonl", ROWS)


def test_the_references_themselves_are_told(tmp_path, capsys):
    (tmp_path / "p.csv").write_text(table(","), encoding="utf-8")
    pr.score_predictions(tmp_path / "p.csv", ROWS)
    assert "every prediction is its reference, word for word" in capsys.readouterr().err


def test_gold_is_never_taken_for_the_prediction():
    file = CASES / "gold-and-generated.jsonl"
    with pytest.raises(DataError, match="summary, generated_summary. Say which with --prediction-column"): pr.score_predictions(file, ROWS)
    assert pr.score_predictions(file, ROWS, column="generated_summary")[2] == ["Somebody planned something."] * 4


def test_columns_can_be_named(tmp_path):
    (tmp_path / "p.csv").write_text("number,a,b\n" + "".join(f'{i},x y,"{t}"\n' for i, t in RECORDS), encoding="utf-8")
    with pytest.raises(DataError, match="--id-column"): pr.score_predictions(tmp_path / "p.csv", ROWS)
    with pytest.raises(DataError, match="a, b. Say which"): pr.score_predictions(tmp_path / "p.csv", ROWS, id_column="number")
    assert pr.score_predictions(tmp_path / "p.csv", ROWS, column="b", id_column="number")[2] == TEXTS
    with pytest.raises(DataError, match="no column 'c'; it has number, a, b"): pr.score_predictions(tmp_path / "p.csv", ROWS, column="c", id_column="number")


def test_shifted_columns_and_lost_lines_are_errors(tmp_path):
    (tmp_path / "p.csv").write_text("id,summary\nc1,a,b\n")
    with pytest.raises(DataError, match="line 2 has 3 columns, its header 2"): pr.score_predictions(tmp_path / "p.csv", ROWS)
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match="2 predictions for 4 rows"): pr.score_predictions(tmp_path / "p.txt", ROWS)


def evaluate(folder, *words, stdin=None):
    "The command itself, in a locale that knows ASCII only."
    (folder / "one.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS), encoding="utf-8")
    env = dict(os.environ, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    command = [sys.executable, "-c", "from latent_summ.ui.cli import main; main()", "evaluate", "--dataset-name", "one.jsonl", *words]
    return subprocess.run(command, cwd=folder, env=env, input=stdin, capture_output=True, timeout=120)


def test_a_single_file_is_scored_whole_from_standard_input_into_a_folder(tmp_path):
    done = evaluate(tmp_path, "--predictions", "-", "--output", "new folder", stdin=FILES["p.csv"].encode())
    assert done.returncode == 0, done.stderr.decode()
    assert "all of its rows are scored" in done.stderr.decode() and "ROUGE-Lsum" in done.stdout.decode("utf-8")
    assert json.loads((tmp_path / "new folder/predictions.report.json").read_text(encoding="utf-8"))["rows"]["evaluated"] == 4


def test_a_folder_that_cannot_be_written_is_told_first(tmp_path):
    (tmp_path / "file").write_text("")
    done = evaluate(tmp_path, "--predictions", "missing.csv", "--output", "file")
    assert done.returncode == 1 and b"Cannot write into file" in done.stderr and b"missing.csv" not in done.stderr
