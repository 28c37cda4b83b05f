"""The main job, end to end and very small: demo, then what its user does next."""
import json
import os
import subprocess
from pathlib import Path

import forks
import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("pretrain_middle", "pretrain_adapter", "finetune_middle", "finetune_adapter")
CHAT = "Anna: can you lend me your tent on Friday?\nBen: sure, come at 6 pm"


def latent_summ(*words, cwd, stdin="") -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return forks.run(["-m", "latent_summ", *words], env, cwd, stdin)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    "A folder in which the demo ran, and what it printed."
    folder = tmp_path_factory.mktemp("demo")
    p = latent_summ("demo", "--messenger-rows", "300", "--max-eval-samples", "30", "--pretrain-adapter-epochs", "1",
                    "--finetune-middle-epochs", "1", "--finetune-adapter-epochs", "1", cwd=folder)
    assert p.returncode == 0, p.stdout + p.stderr
    return folder, p.stdout


def report_of(folder, name="report.json"): return json.loads((folder/"runs/demo"/name).read_text())


def test_report_holds_what_it_promises(demo):
    report = report_of(demo[0])
    for scores in (report, report["baselines"]["lead3"], report["baselines"]["longest3"]):
        assert all(0 <= scores[k] <= 100 for k in ("rouge1", "rouge2", "rougeL", "rougeLsum")) and 0 <= scores["fact_recall"] <= 1
    assert report["rouge1"] > 5 and report["baselines"]["lead3"]["fact_recall"] > 0.3
    assert set(report["seconds"]) >= {"preprocess", "summarize", "total", *STAGES}
    assert report["seconds"]["total"] >= sum(v for k, v in report["seconds"].items() if k in STAGES)
    assert report["rows"]["evaluated"] == 30 and report["rows"]["pairs/train"] == 300 and report["rows"]["also_in_train"] == 0
    assert set(report["facts"]) >= {"person", "day"} and report["peak_memory_gb"] < 3


def test_files_of_the_run(demo):
    run = demo[0]/"runs/demo"
    assert (run/"report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    records = [json.loads(line) for line in (run/"predictions.jsonl").read_text().splitlines()]
    assert len(records) == 30 and {"id", "dialogue", "reference", "prediction", "rouge1", "missed"} <= set(records[0])
    assert {"config.json", "environment.json", "events.jsonl"} <= {p.name for p in run.iterdir()}
    assert {"best_model.pt", "best_model_pretrain.pt", "best_model_finetune.pt"} <= {p.name for p in (run/"checkpoints").iterdir()}


def test_what_is_printed(demo):
    out = demo[1]
    assert [f"[{i}]" in out for i in range(1, 7)] == [True] * 5 + [False]
    assert out.count("\nsummary ") == out.count("\nreference ") == 5
    assert [f"stage {i}/4" in out for i in range(1, 5)] == [True] * 4
    assert all(word in out for word in ("ROUGE-1", "facts %", "this run", "lead-3", "longest-3", "latent_summ summarize --run-dir runs/demo"))


def test_summarize_a_text_standard_input_and_rows(demo):
    folder, _ = demo
    text = latent_summ("summarize", "--run-dir", "runs/demo", CHAT, cwd=folder)
    assert text.returncode == 0 and text.stdout.strip() and text.stdout.count("\n") == 1, text.stderr
    rows = [dict(id="a", dialogue=CHAT), dict(text="Anna: hello"), dict(id=3, dialogue=" ")]
    (folder/"in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    p = latent_summ("summarize", "--run-dir", "runs/demo", "--input", "in.jsonl", "--output", "out.jsonl", cwd=folder)
    assert p.returncode == 0 and "1 of 3 rows are empty" in p.stderr, p.stderr
    out = [json.loads(line) for line in (folder/"out.jsonl").read_text().splitlines()]
    assert [r["id"] for r in out] == ["a", "2", "3"] and out[2]["summary"] == ""
    assert out[0]["summary"] == text.stdout.strip(), "greedy decoding gives the same summary alone and among others"
    piped = latent_summ("summarize", "--model", "runs/demo/checkpoints/best_model.pt", cwd=folder, stdin=CHAT + "\n")
    assert piped.stdout == text.stdout, piped.stderr


def test_evaluate_writes_beside_the_run(demo):
    folder, _ = demo
    before = report_of(folder)
    p = latent_summ("evaluate", "--run-dir", "runs/demo", "--split", "validation", "--max-rows", "10", cwd=folder)
    assert p.returncode == 0 and "messenger, validation: 10 dialogues" in p.stdout, p.stdout + p.stderr
    report = report_of(folder, "report-validation.json")
    assert report["rows"]["evaluated"] == 10 and report["rows"]["pairs/train"] == 300 and report["split"] == "validation"
    assert report_of(folder) == before


def test_use_cannot_change_what_the_model_is(demo):
    p = latent_summ("summarize", "--run-dir", "runs/demo", "--latent-dim", "128", CHAT, cwd=demo[0])
    assert p.returncode == 1 and "latent_dim is 256, not 128" in p.stderr and "Traceback" not in p.stderr


def test_reconstruct_and_interpolate(demo):
    text, other = "Anna will bring a tent on Friday.", "Ben sold a lamp for 40 euros."
    p = latent_summ("reconstruct", "--run-dir", "runs/demo", text, cwd=demo[0])
    assert p.returncode == 0 and p.stdout.count("\n") == 1 and p.stdout.strip(), p.stderr
    walk = latent_summ("interpolate", "--run-dir", "runs/demo", text, other, "--steps", "3", "--texts", cwd=demo[0])
    lines = walk.stdout.splitlines()
    assert walk.returncode == 0 and [line[:6] for line in lines] == ["0.00  ", "0.50  ", "1.00  "], walk.stderr
    assert lines[0][6:] == p.stdout.strip(), "the end of the walk is the text itself, reconstructed"


def test_chat_reads_lines_until_the_end(demo):
    p = latent_summ("chat", "--run-dir", "runs/demo", cwd=demo[0], stdin=CHAT + "\n\n:again\n:nonsense\n:help\n" + CHAT)
    one = latent_summ("summarize", "--run-dir", "runs/demo", CHAT, cwd=demo[0])
    assert p.returncode == 0 and p.stdout.splitlines()[1] == one.stdout.strip() == p.stdout.splitlines()[-1], p.stdout + p.stderr
    assert all(word in p.stdout for word in (":alpha", ":quit", ":nonsense")) and "Traceback" not in p.stderr


def test_the_ladder_and_anybodys_predictions(demo):
    folder, _ = demo
    p = latent_summ("evaluate", "--run-dir", "runs/demo", "--max-rows", "8", "--split", "validation", "--ladder", cwd=folder)
    assert p.returncode == 0 and "Where information is lost" in p.stdout and "bleu" in p.stdout, p.stdout + p.stderr
    ladder = report_of(folder, "report-validation.json")["ladder"]
    assert set(ladder["rungs"]) == {"text", "oracle", "predicted", "shuffled", "null"}
    assert (folder/"runs/demo/side-by-side-validation.html").read_text().lower().startswith("<!doctype html")
    rows = [json.loads(line) for line in (folder/"runs/demo/predictions-validation.jsonl").read_text().splitlines()]
    (folder/"theirs.jsonl").write_text("".join(json.dumps(dict(id=r["id"], summary=r["reference"])) + "\n" for r in rows))
    p = latent_summ("evaluate", "--predictions", "theirs.jsonl", "--run-dir", "runs/demo", "--split", "validation", "--max-rows", "9", cwd=folder)
    assert p.returncode == 0, p.stdout + p.stderr
    theirs = json.loads((folder/"theirs.report.json").read_text())
    assert theirs["rouge1"] == pytest.approx(100 * 8 / 9, abs=0.01), "a row without a prediction counts, as an empty one"
    assert theirs["rows"]["missing"] == 1 and {"theirs.rows.jsonl", "theirs.html"} <= {q.name for q in folder.iterdir()}
