"""The default configuration against a hub: `cache` and `train` by the six default names, then everything a hub can refuse, each with one helpful message."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import forks
import pyarrow.parquet as pq
import pytest
from hub import COMMIT, Hub, make_datasets, make_models, put_parquet

ROOT = Path(__file__).resolve().parent.parent
SAMSUM, WIKITEXT, ARXIV, ENGLISH = "knkarthick/samsum", "Hieuman/wikitext-103-filtered", "macrocosm/arxiv_abstracts", "shuyuej/English-Pretraining-Dataset"
ENCODER, DECODER = "answerdotai/ModernBERT-base", "google/gemma-3-270m-it"
MEMBER, STRANGER, WRONG = "hf_MemberMemberMemberMember", "hf_StrangerStrangerStranger", "hf_WrongWrongWrongWrongWrong"
CPU = ["--device", "cpu"]
CAPS = [*CPU, "--pretrain-middle-max-samples-arxiv", "40", "--pretrain-adapter-max-samples-arxiv", "40", "--max-eval-samples", "5"]
EPOCHS = [w for s in ("pretrain-middle", "pretrain-adapter", "finetune-middle", "finetune-adapter") for w in (f"--{s}-epochs", "1")]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    make_models(root)
    make_datasets(root)
    for kind, name in (("datasets", SAMSUM), ("models", DECODER)):
        for owner in ("closed", "broken", "flipped"): shutil.copytree(root / kind / name, root / kind / owner / name.split("/")[1])
    put_parquet(root, "odd/columns", "train", dict(prompt=["Ann: hi"], completion=["Ann greets."]))
    with Hub(root) as hub:
        hub.tokens, hub.members = {MEMBER, STRANGER}, {MEMBER}
        hub.gated = {"closed/samsum", "closed/gemma-3-270m-it"}
        hub.breaks = {"broken/samsum": range(100, 10**9), "broken/gemma-3-270m-it": range(2_000_000, 10**9)}
        hub.flipped = {"flipped/gemma-3-270m-it"}
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory): return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def work(tmp_path_factory): return tmp_path_factory.mktemp("work")


def environment(hub, home, **more) -> dict:
    return os.environ | hub.env(home) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def latent_summ(words, folder, env) -> subprocess.CompletedProcess:
    return forks.run(["-m", "latent_summ", *words], env, folder)


def manifests(folder) -> dict:
    "The manifests of the caches in a folder, by source and split."
    found = [json.loads(p.read_text()) for p in Path(folder).glob("cache/preprocessed/*/manifest.json")]
    return {(m["source"]["source"], m["source"]["split"]): m for m in found}


# --- one file of a repository -----------------------------------------------------------------------------------------

LOAD_GGUF = """
import sys
from latent_summ.encode.backbones import load_decoder
from latent_summ.config import Config, LatentSummError
cfg = Config.preset("mini").override(gpt2_model=sys.argv[1], gpt2_hidden_dim=32, prefix_len=6, max_target_len=16, max_generation_length=16)
try: print("loaded", load_decoder(cfg).identity)
except LatentSummError as e: print(e)
"""


def test_a_gguf_file_of_the_hub(hub, tmp_path):
    "One file is downloaded and no other; a second process reads it offline; a name that is not there is one message."
    from test_families import gguf_file
    folder = hub.root / "models" / "packed" / "llama"
    (folder / "q8").mkdir(parents=True)
    gguf_file(folder / "q8" / "m.gguf")
    (folder / "other.gguf").write_bytes(b"GGUF" + bytes(1000))
    def load(name, **more):
        env = environment(hub, tmp_path / "home", **more)
        return forks.run(["-c", LOAD_GGUF, name], env).stdout.strip()
    online = load("packed/llama/q8/m.gguf")
    assert online.startswith("loaded") and {f.name for f, *_ in hub.sent("packed/llama")} == {"m.gguf"}, online
    assert load("packed/llama/q8/m.gguf", HF_HUB_OFFLINE="1") == online
    assert "packed/llama/q4/m.gguf" in load("packed/llama/q4/m.gguf")


# --- by the default names ---------------------------------------------------------------------------------------------

def test_cache_and_train_by_the_default_names(hub, home, work):
    env, big = environment(hub, home, HF_TOKEN=MEMBER), pq.ParquetFile(hub.file("datasets", ARXIV, "data/train-00000-of-00001.parquet")).metadata
    hub.gated.add(DECODER)  # as it is on the real hub
    done = latent_summ(["cache", *CAPS], work, env)
    assert done.returncode == 0, done.stderr
    found = manifests(work)
    assert set(found) == {(s, split) for s in (SAMSUM, WIKITEXT, ARXIV, ENGLISH) for split in ("train", "validation")}
    source = found[SAMSUM, "train"]["source"]
    assert (source["read"], source["kept"], source["dropped"]) == (28, 27, {"dialogue: missing": 1})
    assert {s: found[s, "train"]["source"]["columns"]["text"] for s in (WIKITEXT, ARXIV, ENGLISH)} == {WIKITEXT: "query", ARXIV: "abstract", ENGLISH: "text"}
    assert found[SAMSUM, "train"]["fingerprint"]["encoder"]["revision"] == COMMIT
    assert "1 of 5 validation dialogues are also in train" in done.stderr and f"{SAMSUM} (train): 1 of 28 rows dropped: 1 dialogue: missing" in done.stderr
    assert f"{WIKITEXT}: texts are taken from its column 'query'" in done.stderr
    assert "README.md" not in {f.name for f, _, _ in hub.sent(ENCODER)}

    chunks = [c for g in range(big.num_row_groups) for i in range(big.num_columns) if (c := big.row_group(g).column(i)).path_in_schema.startswith("embeddings")]
    vectors = [(c.dictionary_page_offset or c.data_page_offset, c.total_compressed_size) for c in chunks]
    wasted = sum(max(0, min(at + n, start + size) - max(at, start)) for _, at, n in hub.sent(ARXIV) for start, size in vectors)
    assert wasted < 0.2 * sum(size for _, size in vectors), f"{wasted:,} bytes of vectors that nobody uses were sent"  # (some was on its way already)

    asked = len(hub.log)
    done = latent_summ(["train", *CAPS, *EPOCHS, "--max-train-samples", "20", "--run-dir", "run"], work, env)
    assert done.returncode == 0, done.stderr
    assert {"checkpoints/best_model_pretrain.pt", "checkpoints/best_model_finetune.pt", "checkpoints/best_model.pt", "events.jsonl", "config.json"} <= {
        str(p.relative_to(work / "run")) for p in (work / "run").rglob("*")}
    sent = [f.name for _, _, f, _, n in hub.log[asked:] if f and n]
    assert sent == [], "train fetched again what cache had fetched"
    everything = [p.read_bytes() for folder in (work, home) for p in folder.rglob("*") if p.is_file()]
    assert not any(MEMBER.encode() in content for content in everything)


def test_the_preset_laptop_by_its_names(hub, tmp_path):
    "The command of the tutorial, with fewer steps: nothing is fetched but the pair and the dialogues, and what was trained summarises."
    env, few = environment(hub, tmp_path / "home"), ["--teach-encoder-steps", "2", "--finetune-adapter-epochs", "1", "--max-eval-samples", "5", "--no-use-tui"]
    hub.log.clear()
    done = latent_summ(["train", "--preset", "laptop", "--dataset-name", SAMSUM, *CPU, *few, "--run-dir", "run"], tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert set(manifests(tmp_path)) == {(SAMSUM, "train"), (SAMSUM, "validation")}, "stage 0 caches nothing; stage 4 reads the dialogues' vectors"
    assert {hub.owner(file) for _, _, file, _, n in hub.log if file and n} == {SAMSUM, "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"}
    stages = [json.loads(line)["stage"] for line in (tmp_path / "run/events.jsonl").read_text().splitlines() if '"stage_end"' in line]
    assert stages == ["teach_encoder", "finetune_adapter"]
    done = latent_summ(["summarize", "--model", "run", "Ann: lunch at noon?\nBob: yes"], tmp_path, env)
    assert done.returncode == 0 and done.stdout, done.stderr


# --- what a hub can refuse --------------------------------------------------------------------------------------------

DRIVER = """
import contextlib, io, json, os, sys, time, traceback
from latent_summ.ui.cli import status_of
time.sleep = lambda seconds: None  # the libraries' waits between attempts
def call(words, env):
    os.environ.update(env)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try: status = status_of(words)
        except Exception: status = 1; traceback.print_exc()
    return status, out.getvalue()
print("\\n" + json.dumps([call(*case) for case in json.load(sys.stdin)]))
"""


def call_all(cases:list, folder, env) -> list:
    "Run commands, each (words, environment), one after another in one process: (status, output) of each."
    done = forks.run(["-c", DRIVER], env, folder, json.dumps(cases))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


BUILT_IN = ["--wikitext-dataset", "messenger-texts", "--arxiv-dataset", "", "--english-pretrain-dataset", "", "--messenger-rows", "20", "--max-eval-samples", "5"]
PAIRS = ["cache", *CPU, *BUILT_IN, "--no-run-pretraining", "--modernbert-model", "mini", "--modernbert-hidden-dim", "160", "--gpt2-model", "mini",
         "--gpt2-hidden-dim", "160"]
SMALL = [*PAIRS, "--dataset-name", "messenger"]

# what is asked for, with which token, and what the message must say besides the id
DATASETS = {
    "gated": ("closed/samsum", "", ["is gated.", "Accept its terms at {url}/datasets/closed/samsum", "`hf auth login`"]),
    "licence not accepted": ("closed/samsum", STRANGER, ["has not been let in", "Accept its terms at {url}/datasets/closed/samsum with that account"]),
    "bad token": ("bad/token", WRONG, ["your token is not valid", "Correct or unset HF_TOKEN"]),
    "missing": ("no/such", "", ["does not exist on the hub, or is private", "Check the spelling"]),
    "missing, with a token": ("no/other", MEMBER, ["does not exist on the hub, or is private", "Check the spelling"]),
    "missing column": ("odd/columns", "", ["has no column 'dialogue'", "its columns are prompt, completion", "--dialogue-column"]),
    "cut off": ("broken/samsum", "", ["was cut off", "Try again: what has arrived is kept"]),
}
MODELS = {
    "gated": ("closed/gemma-3-270m-it", "", ["is gated.", "Accept its terms at {url}/closed/gemma-3-270m-it", "`hf auth login`"]),
    "licence not accepted": ("closed/gemma-3-270m-it", STRANGER, ["has not been let in", "Accept its terms at {url}/closed/gemma-3-270m-it with that account"]),
    "bad token": ("bad/token", WRONG, ["your token is not valid", "Correct or unset HF_TOKEN"]),
    "missing": ("no/such", "", ["does not exist on the hub, or is private", "Check the spelling"]),
    "missing, with a token": ("no/other", MEMBER, ["does not exist on the hub, or is private", "Check the spelling"]),
    "not an id": ("no such/id", "", ["is neither a folder here nor a hub id"]),
    "cut off": ("broken/gemma-3-270m-it", "", ["was cut off", "Try again: what has arrived is kept"]),
    "flipped bit": ("flipped/gemma-3-270m-it", "", ["is damaged", "model.safetensors", "hf download flipped/gemma-3-270m-it --force-download"]),
}


def check_message(output:str, name:str, says:list, instead:str):
    "One message: the id, the case, the next step, an alternative; no traceback, no token."
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in output, output
    for words in (repr(name) if "no column" not in errors[0] else name, *says, instead): assert words in errors[0], (words, errors[0])
    assert not any(token in output for token in (MEMBER, STRANGER, WRONG)), output


def alternative(output:str) -> list:
    "The flags that a message offers instead."
    return output.split("Without it: ")[1].split(" (")[0].split()


def test_every_refusal_of_a_dataset(hub, home, tmp_path):
    cases = [([*PAIRS, "--dataset-name", name], dict(HF_TOKEN=token)) for name, token, _ in DATASETS.values()]
    results = call_all(cases, tmp_path, environment(hub, home))
    for (status, output), (name, _, says) in zip(results, DATASETS.values()):
        assert status == 1, output
        check_message(output, name, [s.format(url=hub.url) for s in says], "--dialogue-column" if name == "odd/columns" else "Without it: --dataset-name messenger (built in)")
    assert not list(tmp_path.rglob("manifest.json"))


def test_every_refusal_of_a_model(hub, home, tmp_path):
    cases = [([*SMALL, "--gpt2-model", name, "--gpt2-hidden-dim", "640"], dict(HF_TOKEN=token)) for name, token, _ in MODELS.values()]
    instead = ["--gpt2-model", "mini", "--gpt2-hidden-dim", "160"]
    hub.log.clear()
    results = call_all([*cases, cases[-1], (cases[0][0] + instead, {}), (["cache", "--traceback", *cases[1][0][1:]], dict(HF_TOKEN=STRANGER))],
                       tmp_path, environment(hub, home))
    for (status, output), (name, _, says) in zip(results, MODELS.values()):
        assert status == 1, output
        check_message(output, name, [s.format(url=hub.url) for s in says], "Without it: " + " ".join(instead))
    assert alternative(results[0][1]) == instead and results[-2][0] == 0, results[-2]
    assert "is damaged" in results[len(cases)][1], "the second time it was taken for good"
    assert "Traceback" in results[-1][1] and STRANGER not in results[-1][1]


def test_nothing_answers(hub, tmp_path):
    nobody = dict(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "home"))
    cases = [(["cache", *CPU], {}), ([*SMALL, "--modernbert-model", ENCODER, "--modernbert-hidden-dim", "768"], {})]
    for (status, output), name in zip(call_all(cases, tmp_path, environment(hub, tmp_path, **nobody)), (SAMSUM, ENCODER)):
        assert status == 1, output
        check_message(output, name, ["cannot be reached: no connection to the hub, and no copy in the local cache", "Check the network"], "Without it: --")


def test_offline_with_and_without_a_cache(hub, home, work, tmp_path):
    "HF_HUB_OFFLINE: refused with an empty cache; with what the first test left behind, the default names work."
    cases = [(["cache", *CAPS], {}), ([*SMALL, "--gpt2-model", DECODER, "--gpt2-hidden-dim", "640"], {})]
    for (status, output), name in zip(call_all(cases, tmp_path, environment(hub, tmp_path / "empty", HF_HUB_OFFLINE="1")), (SAMSUM, DECODER)):
        assert status == 1, output
        check_message(output, name, ["is not in the local cache, and HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE"], "Without it: --")
    hub.log.clear()
    (status, output), = call_all(cases[:1], work, environment(hub, home, HF_HUB_OFFLINE="1"))
    assert status == 0 and "8 caches" in output and hub.log == [], output


REST = """
import json
from latent_summ.config import Config
from latent_summ.data.sources import load_texts
cfg = Config()
print(json.dumps([load_texts(cfg, cfg.arxiv_dataset, split, rows).report for split, rows in (("train", 1900), ("validation", 50), ("train", 1900))]))
"""


def test_a_broken_connection_costs_only_what_is_missing(hub, tmp_path):
    "arXiv breaks off in the middle: the rows before it are kept, and the next run asks for the others only."
    words = ["cache", *CPU, "--no-run-finetuning", "--wikitext-dataset", "", "--english-pretrain-dataset", "", "--modernbert-model", "mini", "--modernbert-hidden-dim", "160",
             "--gpt2-model", "mini", "--gpt2-hidden-dim", "160", "--pretrain-adapter-epochs", "0"]
    file, env = hub.file("datasets", ARXIV, "data/train-00000-of-00001.parquet"), environment(hub, tmp_path / "home")
    hub.breaks[ARXIV] = range(pq.ParquetFile(file).metadata.row_group(18).column(0).data_page_offset, file.stat().st_size - 100_000)  # what lies at the end is read first
    (status, output), = call_all([(words, {})], tmp_path, env)
    assert status == 1
    check_message(output, ARXIV, ["was cut off", "what has arrived is kept"], "Without it: --arxiv-dataset messenger-texts")
    parts = lambda: [p["rows"] for b in tmp_path.rglob("book.json") for p in json.loads(b.read_text())["parts"]]
    before = sum(parts())
    assert 500 <= before <= 1800, "some of the 18 groups of 100 rows; Arrow reads a few groups ahead, and those are lost"
    del hub.breaks[ARXIV]
    done = forks.run(["-c", REST], env)
    train, validation, again = json.loads(done.stdout)
    assert (train["kept"], validation["kept"], train["dropped"]) == (1900, 50, {}) and again == train, done.stderr
    assert parts()[0] == before and sum(parts()) == 2500  # in pieces of 500: 1,900 rows and those between them that are held out
