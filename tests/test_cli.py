"""The command line: flags, the order of settings, and one clear message for every mistake."""
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

from latent_summ.cli import COMMANDS, status_of
from latent_summ.config import Config, ConfigError

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "latent_summ"]


def environment() -> dict:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    "Run a command in this process and an empty folder: (status, stdout, stderr)."
    monkeypatch.chdir(tmp_path)

    def run(*words):
        try: status = status_of(list(words))
        except SystemExit as e: status = e.code
        out, err = capsys.readouterr()
        return status, out, err
    return run


def files(folder="."): return {p for p in Path(folder).rglob("*") if p.is_file()}


# --- mistakes ---------------------------------------------------------------------------------------------------------

SMALL = ("--preset", "mini", "--messenger-rows", "20")
MISTAKES = {
    "unknown command": (["trian"], 2, "Perhaps you meant 'train'?"),
    "unknown preset": (["train", "--preset", "mni"], 1, "Unknown preset 'mni'"),
    "missing config": (["train", "--config", "missing.json"], 1, "Cannot read the config file missing.json"),
    "config that is no JSON": (["config", "--config", "broken.json"], 1, "broken.json is not JSON"),
    "unknown key in the config": (["config", "--config", "key.json"], 1, "Perhaps you meant 'batch_size'?"),
    "misspelt flag": (["train", "--learning-rat", "1e-4"], 2, "--learning-rate FLOAT"),
    "value out of bounds": (["train", "--batch-size", "-3"], 2, "batch_size must be >= 1, got -3"),
    "value of the wrong type": (["train", "--learning-rate", "fast"], 2, "learning_rate must be float, got 'fast'"),
    "unknown choice": (["train", "--attn-implementation", "flash"], 2, "invalid choice 'flash'"),
    "flag without its value": (["train", "--batch-size"], 2, "--batch-size"),
    "impossible combination": (["config", "--middle-num-heads", "3"], 1, "middle_num_heads=3 must divide latent_dim=256"),
    "save without a path": (["config", "save"], 1, "Say where to save"),
    "save where nothing can be": (["config", "save", "file/x.json"], 1, "Cannot write file/x.json"),
    "empty text": (["summarize", ""], 1, "The text is empty"),
    "blank text": (["summarize", " \n"], 1, "The text is empty"),
    "empty file": (["summarize", "--input", "file"], 1, "The text is empty"),
    "missing input": (["summarize", "--input", "missing.txt"], 1, "Cannot read missing.txt"),
    "text and input": (["summarize", "hello", "--input", "broken.json"], 1, "not both"),
    "a file's name as the text": (["summarize", "broken.json"], 1, "--input broken.json"),
    "row without a text": (["summarize", "--input", "columns.jsonl"], 1, "columns.jsonl, line 1 has no text"),
    "no model yet": (["summarize", "Anna: hello"], 1, "latent_summ demo"),
    "no model there": (["evaluate", "--model", "nowhere"], 1, "There is no trained model in nowhere"),
    "no rows wanted": (["evaluate", "--max-rows", "0"], 1, "--max-rows must be >= 1"),
    "missing source": (["train", *SMALL, "--dataset-name", "missing.jsonl"], 1, "No such file or folder: missing.jsonl"),
    "source without its columns": (["train", *SMALL, "--dataset-name", "columns.jsonl"], 1, "columns.jsonl has no column 'dialogue'"),
    "missing pretraining texts": (["cache", *SMALL, "--wikitext-dataset", "missing.txt"], 1, "No such file or folder: missing.txt"),
    "hub id without a network": (["train", *SMALL, "--dataset-name", "knkarthick/samsum"], 1, "HF_HUB_OFFLINE is set"),
    "demo of a missing source": (["demo", "--dataset-name", "missing.jsonl"], 1, "No such file or folder: missing.jsonl"),
    "run folder below a file": (["train", *SMALL, "--run-dir", "file/run"], 1, "Cannot write file/run"),
    "nothing to resume": (["train", *SMALL, "--resume"], 1, "no run in runs/mini to resume"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message(name, call, monkeypatch):
    words, status, message = MISTAKES[name]
    Path("file").write_text("")
    Path("broken.json").write_text("{batch_size: 3}")
    Path("key.json").write_text('{"batch_siz": 3}')
    Path("columns.jsonl").write_text('{"question": "how?", "answer": "so"}\n')
    before = files()
    got, out, err = call(*words)
    assert got == status, out + err
    assert message in " ".join(err.replace("│", " ").split()), err
    assert "Traceback" not in out + err
    assert err.count("error:") == (status == 1 or name == "unknown command")
    assert not out.strip(), out
    assert files() == before, "something was left behind"


def test_traceback_is_shown_on_request(call):
    with pytest.raises(ConfigError): call("config", "--traceback", "--config", "missing.json")
    with pytest.raises(ConfigError): call("--traceback", "config", "--config", "missing.json")


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    p = subprocess.run([*COMMAND, "train", "--preset", "nothing"], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (p.returncode, p.stdout) == (1, "") and p.stderr.startswith("error: Unknown preset") and p.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(tmp_path):
    p = subprocess.Popen([*COMMAND, "config", "show"], cwd=tmp_path, env=environment() | {"PYTHONUNBUFFERED": "1"},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.close()
    assert p.stderr.read() == b""
    p.stderr.close()
    assert p.wait(30) == 141


# --- settings ---------------------------------------------------------------------------------------------------------

def test_preset_then_file_then_flags(call):
    Path("mine.json").write_text(json.dumps(dict(batch_size=7, max_seq_len=100, device="cpu")))
    status, out, err = call("config", "diff", "--preset", "mini", "--config", "mine.json", "--batch-size", "9", "--max-train-samples", "none")
    assert status == 0, err
    lines = {line.split(" = ")[0]: line.split(" = ")[1] for line in out.splitlines() if " = " in line}
    assert lines["batch_size"].startswith("9 ") and "# flag; default 30" in lines["batch_size"]
    assert lines["max_seq_len"].startswith("100 ") and "# mine.json; default 512" in lines["max_seq_len"]
    assert lines["optimizer"].startswith('"muon" ') and "# preset mini" in lines["optimizer"]
    assert "max_train_samples" not in lines


def test_the_references_own_call_works(call):
    "`--mode X` is the command X, and the flags are its own."
    flags = ["--learning-rate", "5e-5", "--batch-size", "20", "--pretrain-middle-epochs", "8"]
    status, out, _ = call("--mode", "config", "save", "reference.json", *flags)
    assert status == 0
    assert json.loads(Path("reference.json").read_text()) == Config(learning_rate=5e-5, batch_size=20, pretrain_middle_epochs=8).__dict__
    status, out, err = call("--mode", "train", *flags, "--dataset-name", "missing.jsonl", "--wikitext-dataset", "", "--arxiv-dataset", "")
    assert (status, err.split(":")[0]) == (1, "error") and "missing.jsonl" in err


def test_every_field_is_a_flag_and_comes_back(call):
    "All values typed as flags give the config they came from."
    cfg = Config.preset("mini").override(max_train_samples=11, text_column="body", run_dir="runs/x y", learning_rate=1.25e-7)
    words = []
    for f in dataclasses.fields(cfg):
        flag, value = f.name.replace("_", "-"), getattr(cfg, f.name)
        if isinstance(value, bool): words.append(f"--{flag}" if value else f"--no-{flag}")
        else: words += [f"--{flag}={'none' if value is None else value}"]
    assert call("config", "save", "typed.json", *words)[0] == 0
    assert Config.load("typed.json") == cfg


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name, call):
    status, out, _ = call(name, "--help")
    assert status == 0 and out.startswith(f"usage: latent_summ {name}")
    missing = [f.name for f in dataclasses.fields(Config) if f"--{f.name.replace('_', '-')}" not in out]
    assert not missing
    assert "--config FILE" in out and "--preset NAME" in out and "--traceback" in out


def test_no_command_shows_the_commands(call):
    for words in ([], ["--help"]):
        status, out, _ = call(*words)
        assert status == 0 and all(f"• {name}" in out or f"* {name}" in out or f"  {name}" in out for name in COMMANDS)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["config", "diff", "--preset", "mini"], ["train", "--learning-rat", "1"]])
def test_quick_answers_without_torch(words, tmp_path):
    code = ("import sys, time\nfrom latent_summ.cli import status_of\n"
            f"try: status_of({words!r})\nexcept SystemExit: pass\n"
            "print('\\n', [m for m in ('torch', 'transformers', 'datasets', 'pandas', 'matplotlib') if m in sys.modules], time.process_time())")
    p = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    loaded, seconds = p.stdout.splitlines()[-1].rsplit(maxsplit=1)
    assert loaded.strip() == "[]", p.stderr
    assert float(seconds) < 0.6
