"""The command line: flags, the order of settings, and one clear message for every mistake."""
import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from hub import Hub

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

from latent_summ import __version__
from latent_summ.ui import doctor
from latent_summ.ui.cli import COMMANDS, status_of, takes_settings
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
    "unknown choice": (["train", "--attn-implementation", "flash"], 2, "flash_attention_2, sdpa, eager; got 'flash'"),
    "flag without its value": (["train", "--batch-size"], 1, "--batch-size needs a value."),
    "flag without its value, before another": (["train", "--run-dir", "--seed", "3"], 1, "--run-dir needs a value."),
    "a sweep of nothing": (["sweep", "--set"], 1, "--set needs a value, as in --set learning_rate=1e-3,3e-3. See --set in `latent_summ sweep --help`."),
    "a sweep of nothing, before another flag": (["sweep", "--set", "--bits", "4"], 1, "--set needs a value, as in --set learning_rate"),
    "preset without its value": (["train", "--preset"], 1, "--preset needs a value: reference, mini, "),
    "a preset where there are no settings": (["plan", "--preset"], 1, "plan takes no settings, and so no --preset"),
    "a misspelt action": (["config", "shw"], 1, "Perhaps you meant 'show'?"),
    "impossible combination": (["config", "--middle-num-heads", "3"], 1, "middle_num_heads=3 must divide latent_dim=256"),
    "save without a path": (["config", "save"], 1, "Say where to save"),
    "save where nothing can be": (["config", "save", "file/x.json"], 1, "Cannot write file/x.json"),
    "empty text": (["summarize", ""], 1, "The text is empty"),
    "blank text": (["summarize", " \n"], 1, "The text is empty"),
    "empty file": (["summarize", "--input", "file"], 1, "The text is empty"),
    "missing input": (["summarize", "--input", "missing.txt"], 1, "Cannot read missing.txt"),
    "text and input": (["summarize", "hello", "--input", "broken.json"], 1, "not both"),
    "one text to interpolate": (["interpolate", "Anna: hi"], 1, "Give two texts"),
    "one step": (["interpolate", "a", "b", "--steps", "1"], 1, "--steps must be >= 2"),
    "nothing to reconstruct": (["reconstruct", " "], 1, "The text is empty"),
    "no model to talk to": (["chat", "--model", "nowhere"], 1, "latent_summ demo"),
    "a ladder without a model": (["evaluate", "--predictions", "columns.jsonl", "--ladder"], 1, "Leave one of them out"),
    "missing predictions": (["evaluate", "--predictions", "missing.jsonl", "--preset", "mini", "--max-rows", "5"], 1, "missing.jsonl"),
    "missing predictions, before the references": (["evaluate", "--predictions", "missing.jsonl"], 1, "There is no file missing.jsonl"),
    "a file for evaluate": (["evaluate", "--input", "mine.csv"], 1, "latent_summ evaluate --dataset-name mine.csv"),
    "a report of no run": (["report"], 1, "`latent_summ demo` and `latent_summ train` make one"),
    "a file's name as the text": (["summarize", "broken.json"], 1, "--input broken.json"),
    "row without a text": (["summarize", "--input", "columns.jsonl"], 1, "columns.jsonl, line 1 has no text"),
    "no model there for a text": (["summarize", "--model", "nowhere", "Anna: hello"], 1, "latent_summ demo"),
    "no model there": (["evaluate", "--model", "nowhere"], 1, "There is no trained model in nowhere"),
    "no rows wanted": (["evaluate", "--max-rows", "0"], 1, "--max-rows must be >= 1"),
    "missing source": (["train", *SMALL, "--dataset-name", "missing.jsonl"], 1, "No such file or folder: missing.jsonl"),
    "source without its columns": (["train", *SMALL, "--dataset-name", "columns.jsonl"], 1, "columns.jsonl has no column 'dialogue'"),
    "missing pretraining texts": (["cache", *SMALL, "--wikitext-dataset", "missing.txt"], 1, "No such file or folder: missing.txt"),
    "hub id without a network": (["train", *SMALL, "--dataset-name", "knkarthick/samsum"], 1, "HF_HUB_OFFLINE is set"),
    "demo of a missing source": (["demo", "--dataset-name", "missing.jsonl"], 1, "No such file or folder: missing.jsonl"),
    "run folder below a file": (["train", *SMALL, "--run-dir", "file/run"], 1, "Cannot make the run folder file/run"),
    "settings before the command": (["--preset", "mini", "train"], 2, "the command comes first: latent_summ train --preset mini"),
    "settings without a command": (["--learning-rate", "3"], 2, "which command is --learning-rate for?"),
    "a bool with a value": (["train", "--use-bf16", "false"], 1, "write --no-use-bf16 instead of --use-bf16 false"),
    "a bool with a value behind =": (["train", "--no-use-bf16=no"], 1, "write --use-bf16 instead of --no-use-bf16=no"),
    "an int with an exponent": (["train", "--batch-size=1e3"], 2, "batch_size must be int, got '1e3'. Write it out: 1000."),
    "none where there must be a value": (["train", "--batch-size", "none"], 2, "batch_size must be int, got 'none'"),
    "misspelt choice": (["train", "--attn-implementation", "spda"], 2, "Perhaps you meant 'sdpa'?"),
    "unknown split": (["evaluate", "--split", "tset"], 2, "('test', 'validation', 'train')"),
    "a word too many": (["train", "now"], 2, "Unrecognized options: now"),
    "two impossible sources of one setting": (["config", "--config", "heads.json", "--latent-dim", "100"], 1, "comes from heads.json; latent_dim comes from a flag."),
    "config diff with a path": (["config", "diff", "x.json"], 1, "did you mean `config save x.json`?"),
    "unknown shell": (["completion", "tcsh"], 2, "tcsh"),
    "settings for a command without any": (["completion", "--learning-rate", "3"], 2, "Unrecognized options: --learning-rate"),
    "a part that cannot be": (["cache", *SMALL, "--shard", "3/2"], 1, "1 <= i <= n"),
    "a folder without merge": (["cache", *SMALL, "merg"], 2, "('build', 'merge')"),
    "merge with a part": (["cache", "merge", "--shard", "1/2"], 1, "takes no --shard"),
    "nothing to merge": (["cache", "merge", "missing"], 1, "There are no parts in missing"),
    "no runs yet": (["runs"], 1, "There is no folder runs here"),
    "no such runs": (["runs", "list", "missing"], 1, "There is no folder missing"),
    "a folder that is none, without list": (["runs", "missing"], 1, "There is no folder missing"),
    "a model to export to nowhere": (["export", "mini"], 1, "latent_summ export runs/mine exported/mine"),
    "a model that is none to export": (["export", "nowhere", "there"], 1, "There is no trained model in nowhere"),
    "one run to compare": (["runs", "compare", "a"], 1, "Say which runs to compare"),
    "no run to compare": (["runs", "compare", "a", "b"], 1, "error:"),
    "nothing to resume": (["train", *SMALL, "--resume"], 1, "no run in runs/mini to resume"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message(name, call, monkeypatch):
    words, status, message = MISTAKES[name]
    Path("file").write_text("")
    Path("broken.json").write_text("{batch_size: 3}")
    Path("key.json").write_text('{"batch_siz": 3}')
    Path("heads.json").write_text('{"middle_num_heads": 3}')
    Path("columns.jsonl").write_text('{"question": "how?", "answer": "so"}\n')
    before = files()
    got, out, err = call(*words)
    assert got == status, out + err
    assert message in " ".join(err.replace("│", " ").split()), err
    assert "Traceback" not in out + err
    assert err.count("error:") == (status == 1 or name in ("unknown command", "settings before the command", "settings without a command"))
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


def test_a_file_and_a_flag_may_only_fit_together(call):
    "Each layer is checked value by value, their sum as a whole."
    Path("heads.json").write_text('{"middle_num_heads": 3}')
    assert call("config", "--config", "heads.json")[0] == 1
    status, out, err = call("config", "diff", "--config", "heads.json", "--latent-dim", "258")
    assert status == 0 and "latent_dim = 258" in out and "middle_num_heads = 3" in out, err


def test_flags_of_a_config_are_words_to_paste(call):
    status, out, _ = call("config", "flags", "--preset", "mini", "--train-split", "two words", "--no-use-tui")
    assert status == 0 and "'--train-split=two words'" in out and "--no-use-tui" in out
    assert call("config", "save", "pasted.json", *shlex.split(out))[0] == 0
    assert Config.load("pasted.json") == Config.preset("mini").override(train_split="two words", use_tui=False)


def test_save_says_what_is_not_at_its_default_and_why(call):
    status, out, _ = call("config", "save", "x.json", "--batch-size", "3")
    assert status == 0 and out.startswith("Saved x.json") and "batch_size = 3" in out and "# flag; default 30" in out


def test_version_and_help_words(call):
    assert call("--version") == (0, f"latent_summ {__version__}\n", "")
    assert call("help")[1] == call()[1] == call("-h")[1]
    assert call("help", "train")[1] == call("train", "--help")[1]
    assert call("train", "--mode", "train", "--help")[0] == 0


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
    assert "--traceback" in out
    if not takes_settings(COMMANDS[name][0]): return
    missing = [f.name for f in dataclasses.fields(Config) if f"--{f.name.replace('_', '-')}" not in out]
    assert not missing
    assert "--config FILE" in out and "--preset NAME" in out


def test_no_command_shows_the_commands(call):
    for words in ([], ["--help"]):
        status, out, _ = call(*words)
        assert status == 0 and all(f"• {name}" in out or f"* {name}" in out or f"  {name}" in out for name in COMMANDS)


def test_overview_without_parser(tmp_path):
    "The answer to `--help` alone needs no parser: half of its time was spent in loading one."
    code = "import sys\nfrom latent_summ.ui.cli import status_of\nstatus_of(['--help'])\nprint('\\n', 'tyro' in sys.modules)"
    p = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert p.stdout.splitlines()[-1].strip() == "False", p.stderr


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["config", "diff", "--preset", "mini"], ["train", "--learning-rat", "1"],
                                   ["completion", "bash"], ["--version"]])
def test_quick_answers_without_torch(words, tmp_path):
    "What takes seconds is not loaded (benchmarks/startup.py measures)."
    code = ("import sys\nfrom latent_summ.ui.cli import status_of\n"
            f"try: status_of({words!r})\nexcept SystemExit: pass\n"
            "print('\\n', [m for m in ('torch', 'transformers', 'datasets', 'pandas', 'matplotlib', 'numpy') if m in sys.modules])")
    p = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert p.stdout.splitlines()[-1].strip() == "[]", p.stderr


# --- the doctor -------------------------------------------------------------------------------------------------------

SECRET = "hf_verysecretverysecret"


def make_hub(folder) -> Path:
    "What the doctor asks about: a file of each model and dataset. It only asks, so the files may be empty."
    for name in ("answerdotai/ModernBERT-base", "google/gemma-3-270m-it"):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "config.json").write_text("{}")
    for name in ("knkarthick/samsum", "Hieuman/wikitext-103-filtered", "macrocosm/arxiv_abstracts", "shuyuej/English-Pretraining-Dataset"):
        (folder / "datasets" / name / "data").mkdir(parents=True)
        (folder / "datasets" / name / "data/train.parquet").write_text("")
    return folder


def diagnose(home, *words, **env):
    "`latent_summ doctor` in a process of its own: (status, {name: line}, everything it said)."
    p = forks.run(["-m", "latent_summ", "doctor", *words], environment() | dict(HF_HUB_OFFLINE="0", HF_HOME=str(home), HF_TOKEN="") | env, home)
    lines = {line.split()[1]: line for line in p.stdout.splitlines() if line[:4] in ("ok  ", "warn", "fail")}
    return p.returncode, lines, p.stdout + p.stderr


def status_in(lines, *names): return [lines[n].split()[0] for n in names]


REMOTE = ("encoder", "decoder", "dataset_name", "wikitext_dataset", "arxiv_dataset", "english_pretrain_dataset")


def test_doctor_finds_the_small_setting_ready_and_asks_nobody(tmp_path):
    with Hub(tmp_path) as hub:
        status, lines, said = diagnose(tmp_path, "--preset", "mini", **hub.env(tmp_path, SECRET))
        assert status == 0 and {line.split()[0] for line in lines.values()} == {"ok"} and "Everything is ready." in said, said
        assert hub.log == [] and SECRET not in said
    assert set(lines) >= {"python", "packages", "device", "attention", "hub", "encoder", "decoder", "dataset_name", "wikitext_dataset", "disk", "memory"}
    assert "28,000 training rows" in lines["disk"]


def test_doctor_when_everything_can_be_read(tmp_path):
    with Hub(make_hub(tmp_path / "hub")) as hub:
        hub.tokens.add(SECRET)
        status, lines, said = diagnose(tmp_path, "--device", "cpu", "--attn-implementation", "sdpa", **hub.env(tmp_path, SECRET))
    assert status == 0 and status_in(lines, "hub", *REMOTE) == ["ok"] * 7, said
    assert "a token is set" in lines["hub"] and SECRET not in said
    assert "is not known" in lines["disk"]


def test_doctor_names_each_refusal_and_its_next_step(tmp_path):
    with Hub(make_hub(tmp_path / "hub")) as hub:
        hub.gated |= {"google/gemma-3-270m-it", "knkarthick/samsum"}
        status, lines, said = diagnose(tmp_path, "--arxiv-dataset", "nobody/nothing", "--wikitext-dataset", "missing.txt", "--english-pretrain-dataset", "", **hub.env(tmp_path))
    assert status == 1 and status_in(lines, "encoder", "decoder", "dataset_name", "wikitext_dataset", "arxiv_dataset") == ["ok", "fail", "fail", "fail", "fail"], said
    assert "gated" in lines["decoder"] and f"{hub.url}/google/gemma-3-270m-it" in lines["decoder"] and "hf auth login" in lines["decoder"] and "--preset mini" in lines["decoder"]
    assert "gated" in lines["dataset_name"] and "/datasets/knkarthick/samsum" in lines["dataset_name"] and "--dataset-name messenger" in lines["dataset_name"]
    assert "does not exist" in lines["arxiv_dataset"] and "No such file or folder: missing.txt" in lines["wikitext_dataset"]
    assert "english_pretrain_dataset" not in lines and "4 things must be changed" in said and "no token is set" in lines["hub"]


@pytest.mark.parametrize("where, token", [("HF_TOKEN", SECRET), ("HF_TOKEN", f"{SECRET} and more"), ("HF_TOKEN", "pass\nphrase"), ("file", SECRET),
                                          ("file", "päßwörd-päßwörd")])
def test_doctor_never_shows_a_token(token, where, tmp_path):
    "Also not one that is refused, or that no header can carry (the error of the HTTP library quotes it)."
    with Hub(make_hub(tmp_path / "hub")) as hub:
        if where == "file": (tmp_path / "token").write_text(token)
        env = hub.env(tmp_path, token if where == "HF_TOKEN" else "")
        if where == "file": del env["HF_TOKEN"]
        status, lines, said = diagnose(tmp_path, **env)
    assert status == 1 and status_in(lines, "encoder", "dataset_name") == ["fail", "fail"], said
    for part in token.split():
        if part not in ("and", "more"): assert part not in said, said
    assert "Traceback" not in said


def test_doctor_hides_a_token_that_an_error_quotes(monkeypatch, capsys):
    secret = "s3cret-without-a-known-form"
    def refuse(name): raise RuntimeError(f"Illegal header value b'Bearer {secret}'")
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor, "ask_model", refuse)
    found = doctor.checks(Config.preset("mini").override(gpt2_model="some/model"))
    doctor.show(found)
    out = capsys.readouterr().out
    assert secret not in out and secret not in repr(found) and "Bearer ***" in out


@pytest.mark.parametrize("env", [dict(HF_HUB_OFFLINE="1"), dict(HF_ENDPOINT="http://127.0.0.1:9")], ids=["told to stay offline", "nobody there"])
def test_doctor_without_a_network(env, tmp_path):
    status, lines, said = diagnose(tmp_path, **env)
    assert status == 1 and status_in(lines, "hub", *REMOTE) == ["warn"] + ["fail"] * 6, said
    assert all(" -> " in line for line in lines.values() if line.startswith(("warn", "fail")) and " disk " not in line)


def test_doctor_is_content_with_what_is_in_the_local_cache(tmp_path):
    for name in ("answerdotai/ModernBERT-base", "google/gemma-3-270m-it"):
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots/abc"
        folder.mkdir(parents=True)
        for file in ("config.json", "model.safetensors"): (folder / file).write_text("{}")
    _, lines, said = diagnose(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert status_in(lines, "encoder", "decoder", "dataset_name") == ["ok", "ok", "fail"] and "local cache" in lines["encoder"], said


def test_doctor_looks_at_folders_widths_and_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "chats.jsonl").write_text('{"question": "how?"}\n')
    status, lines, said = diagnose(tmp_path, "--preset", "mini", "--gpt2-model", "empty", "--modernbert-hidden-dim", "768", "--dataset-name", "chats.jsonl")
    assert status == 1 and status_in(lines, "device", "encoder", "decoder", "dataset_name") == ["ok", "fail", "fail", "fail"], said
    assert "--modernbert-hidden-dim 160" in lines["encoder"] and "config.json" in lines["decoder"] and "no column 'dialogue'" in lines["dataset_name"]


# --- completion -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def scripts() -> dict:
    out = {}
    for shell in ("bash", "zsh", "fish"):
        p = subprocess.run([*COMMAND, "completion", shell], env=environment(), capture_output=True, text=True)
        assert p.returncode == 0 and not p.stderr
        out[shell] = p.stdout
    return out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_valid_script_with_every_option(shell, scripts):
    script = scripts[shell]
    assert not [f.name for f in dataclasses.fields(Config) if f"{'-l ' if shell == 'fish' else '--'}{f.name.replace('_', '-')}" not in script]
    assert not [name for name in COMMANDS if name not in script]
    if not shutil.which(shell): pytest.skip(f"there is no {shell} here")
    p = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert p.returncode == 0 and not p.stderr


TABS = {"tr": ["train"], "": list(COMMANDS), "train --learn": ["--learning-rate"], "train --optimizer ": ["adamw", "muon"], "train --optimizer mu": ["muon"],
        "train --optimizer = m": ["muon"], "train --batch-size 3 --no-use-t": ["--no-use-tui", "--no-use-torch-compile"], "train --batch-size ": [],
        "train --max-train-samples ": ["none"], "doctor --preset mini-": ["mini-reference"], "config d": ["diff"], "config save x.": ["x.json"],
        "train --config x": ["x.json"], "evaluate --split v": ["validation"], "--mode tr": ["train"], "--mode train --learn": ["--learning-rate"],
        "completion ": ["bash", "zsh", "fish"], "completion --learn": [], "cache ": ["build", "merge"], "runs c": ["compare"], "--v": ["--version"],
        "summarize --model ": ["mini", "runs/a", "runs/b"], "summarize --model runs/b": ["runs/b"], "chat --model m": ["mini"], "chat --model x": ["x.json"]}


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
@pytest.mark.parametrize("line", TABS)
def test_bash_completes(line, scripts, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for run in "ab": (tmp_path / "runs" / run).mkdir(parents=True)
    call = 'COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _latent_summ; printf "%s\\n" "${COMPREPLY[@]}"'
    (tmp_path / ".script").write_text(scripts["bash"])
    p = subprocess.run(["bash", "-c", "source ./.script; " + call, "bash", "latent_summ", *line.split(" ")], cwd=tmp_path, capture_output=True, text=True)
    assert p.stderr == "" and sorted(p.stdout.split()) == sorted(TABS[line])


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key(shell, scripts, tmp_path):
    "A real shell on a real terminal: what the line becomes when TAB is pressed."
    pexpect = pytest.importorskip("pexpect")
    if not shutil.which(shell): pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(scripts[shell])
    env = environment() | dict(HOME=str(tmp_path), TERM="dumb", PS1="> ", ZDOTDIR=str(tmp_path), INPUTRC="/dev/null")
    words = ["--norc", "--noprofile", "-i"] if shell == "bash" else ["-f", "-i"]
    child = pexpect.spawn(shell, words, cwd=str(tmp_path), env=env, encoding="utf-8", timeout=30, dimensions=(50, 200))
    load = 'eval "$(cat script)"' if shell == "zsh" else "source ./script"
    child.sendline(load + "; echo rea''dy")
    child.expect("ready")
    for typed, becomes in (("latent_summ tr", "ain "), ("latent_summ train --learn", "ing-rate"), ("latent_summ train --optimizer mu", "on"),
                           ("latent_summ train --optimizer=mu", "on"), ("latent_summ doctor --preset mini-", "reference"),
                           ("latent_summ chat --model mi", "ni")):
        child.send(typed)
        child.expect_exact(typed[-6:])
        child.send("\t")
        child.expect_exact(becomes)
        child.send("\x15")
    child.close()


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish here")
def test_fish_completes(scripts, tmp_path):
    (tmp_path / "script").write_text(scripts["fish"])
    (tmp_path / "runs" / "a").mkdir(parents=True)
    lines = {"tr": "train", "train --learn": "--learning-rate", "train --optimizer mu": "muon", "config d": "diff", "chat --model m": "mini"}
    for line, word in lines.items():
        p = subprocess.run(["fish", "--no-config", "-c", f"source script; complete -C 'latent_summ {line}'"], cwd=tmp_path, capture_output=True, text=True)
        assert p.stderr == "" and word in [said.split("\t")[0] for said in p.stdout.splitlines()], (line, p)


# --- which model, how many rows ---------------------------------------------------------------------------------------

def test_a_newer_run_is_not_taken_without_being_named(call):
    Path("runs/failed/checkpoints").mkdir(parents=True)
    Path("runs/failed/checkpoints/best_model.pt").write_text("")
    status, out, err = call("summarize", "Anna: hi\nBen: hello")
    assert status == 0 and "note: using mini: facts " in err and "failed" not in out + err


def test_too_few_rows_are_refused_unless_asked_for(call):
    Path("chats.csv").write_text("dialogue,summary\n" + "".join(f"Anna: hi {i},Anna greets {i}.\n" for i in range(12)))
    status, _, err = call("train", "--preset", "mini", "--dataset-name", "chats.csv")
    assert status == 1 and "4 finetune adapter 12 rows, 1 step: too few" in err and "--few-rows" in err
    assert not Path("runs").exists()


# --- cache, runs ------------------------------------------------------------------------------------------------------

def cached(folder) -> dict: return {p.relative_to(folder): p.read_bytes() for p in Path(folder).glob("*/rows-*")}


def test_parts_are_embedded_apart_and_merged(call):
    small = ["--preset", "mini", "--messenger-rows", "20", "--max-eval-samples", "5", "--pretrain-middle-max-samples", "12", "--pretrain-adapter-max-samples", "12"]
    assert call("cache", *small, "--preprocess-cache-dir", "whole")[0] == 0
    for shard in ("1/2", "2/2"):
        status, out, err = call("cache", *small, "--preprocess-cache-dir", "apart", "--shard", shard)
        assert status == 0 and f"Part {shard[0]} of 2" in out and "cache merge" in out, err
    status, out, err = call("cache", "merge", "apart", "--preprocess-cache-dir", "joined")
    assert status == 0 and "can be deleted now" in out, err
    assert cached("joined") == cached("whole") and len(cached("whole")) == 4
    status, out, _ = call("cache", *small, "--preprocess-cache-dir", "joined")
    assert status == 0 and "4 caches in joined" in out


def test_rebuild_embeds_again(call):
    small = ["--preset", "mini", "--messenger-rows", "4", "--max-eval-samples", "2", "--no-run-pretraining"]
    assert call("cache", *small)[0] == 0
    written = {p: p.stat().st_mtime_ns for p in Path("cache").rglob("rows-*")}
    assert call("cache", *small)[0] == 0 and {p: p.stat().st_mtime_ns for p in Path("cache").rglob("rows-*")} == written
    assert call("cache", *small, "--rebuild")[0] == 0
    assert written and all(p.stat().st_mtime_ns > was for p, was in written.items())


def make_run(folder, **changes):
    "What a finished run leaves, as far as the list of runs reads it."
    folder = Path(folder)
    folder.mkdir(parents=True)
    Config.preset("mini").override(run_dir=str(folder), **changes).save(folder / "config.json")
    events = [dict(time=1e9, event="run_start"), dict(time=1e9 + 9, event="run_end", seconds=9.0)]
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))


def test_runs_lists_and_compares(call):
    make_run("runs/a")
    make_run("runs/b", learning_rate=0.25)
    status, out, err = call("runs")
    assert status == 0 and {"a", "b"} <= {line.split()[0] for line in out.splitlines()}, err
    assert call("runs", "list", "runs")[1] == out
    status, out, err = call("runs", "compare", "runs/a", "runs/b")
    assert status == 0 and any(line.split() == ["learning_rate", "0.01", "0.25"] for line in out.splitlines()), out + err
    assert "batch_size" not in out
