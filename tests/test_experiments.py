"""The scripts beside the experiment notebooks: each runs through, on very little."""
import importlib.util
import json
import re
import random
from pathlib import Path

import pytest
import torch

from latent_summ.config import STAGES, Config
from latent_summ.train.events import EventLog
from latent_summ.train.lesson import taught
from latent_summ.use.facts import role_recall
from latent_summ.data.messenger import chats, texts

EXPERIMENTS = Path(__file__).resolve().parent.parent / "nbs" / "experiments"


def script(name:str):
    "A script of that folder as a module."
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_rows(path:Path, rows:list): path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    "A folder as `real_text` wants it, with chats of the built-in corpus in the place of people's."
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("samsum", "dialogsum")):
        for split, n in (("train", 40), ("validation", 4)):
            write_rows(folder / f"{name}.{split}.jsonl", [{k: r[k] for k in ("id", "dialogue", "summary")} for r in chats(n, split, seed=seed)])
    write_rows(folder / "prose.jsonl", [{"text": r["text"]} for r in texts(20)])
    return folder


def test_real_text_runs_through(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LATENT_SUMM_DATA", str(data))
    real, threads, generator = script("real_text"), torch.get_num_threads(), torch.Generator
    read, draw = [], real.Corpus.chats
    monkeypatch.setattr(real.Corpus, "chats", lambda self, n, **options: read.append(n) or draw(self, n, **options))
    tiny = "--general prose --steps 1 --width 64 --layers 1 --vocab 400 --batch-size 4 --text-rows 20".split()
    places = ["--out", str(tmp_path / "out"), "--output", str(tmp_path / "found.json")]
    try:
        real.main([*tiny, *places])
        found = json.loads((tmp_path / "found.json").read_text())
        real.main(["--phases", "reading", *tiny, *places]) # goes on with the decoder that is there
    finally: torch.set_num_threads(threads)
    assert set(found["datasets"]) == {"samsum", "dialogsum"} and found["rows"]["pairs/train"] == 72 and found["rows"]["pairs/validation"] == 8
    for figures in found["datasets"].values():
        assert figures["rows"]["evaluated"] == 4 and set(figures["baselines"]) == {"lead3", "longest3", "random3"}
        assert set(figures["ladder"]["rungs"]) == {"text", "oracle", "predicted", "shuffled", "null"} and figures["ceiling"]["intervals"]
    assert set(found["seconds"]) == {*real.SHARES, "preprocess", *STAGES, "evaluate"}
    assert str(tmp_path) not in json.dumps(found), "no folder of this machine in the figures"
    lessons = json.loads((tmp_path / "out" / "decoder" / "training.json").read_text())["lessons"]
    assert [lesson["name"] for lesson in lessons] == ["decoder", "reading", "reading"]
    assert read and torch.Generator is generator, "the lessons read the real rows"


def test_real_text_corpus(data):
    real = script("real_text")
    corpus = real.Corpus(str(data), ["samsum", "dialogsum"], ["prose"], chars=120)
    every = corpus.chats(2 * len(corpus.pairs), seed=3)
    assert {r["id"] for r in every[:len(corpus.pairs)]} == {r["id"] for r in corpus.pairs} and every == corpus.chats(50, seed=3) + corpus.chats(len(every) - 50, seed=3, start=50)
    kept = {r["dialogue"] for r in corpus.held}
    assert len(kept) == 8 and not kept & {r["dialogue"] for r in corpus.pairs} and max(len(r["dialogue"]) for r in corpus.pairs) <= 120
    assert {r["text"] for r in corpus.texts(50, mix=dict(summary=1, window=0, chat=0, general=0))} <= {r["summary"] for r in corpus.pairs}
    assert real._clip("A: hi\nB: yes", 8) == "A: hi" and real._clip("A: hi there", 4) == "A: h" and real._clip("A: hi\nB: no", 11) == "A: hi\nB: no"


def test_real_text_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.delenv("LATENT_SUMM_DATA", raising=False)
    with pytest.raises(SystemExit): script("real_text").main([])
    assert "LATENT_SUMM_DATA names no folder" in capsys.readouterr().err


def test_a_variant_takes_up_the_pretraining_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = script("facts_kept")
    tiny = dict(messenger_rows=40, max_eval_samples=8, batch_size=8, pretrain_middle_max_samples=16, pretrain_adapter_max_samples=16, pretrain_adapter_epochs=1,
                finetune_middle_epochs=1, finetune_adapter_epochs=1)
    monkeypatch.setattr(kept, "VARIANTS", {"demo": ("", "mini", tiny, None), "no middle": ("", "mini", tiny | kept.ALONE | dict(finetune_middle_epochs=0), "demo")})
    run = kept.train("no middle", 0)
    stages = [e["stage"] for e in map(json.loads, (run / "events.jsonl").read_text().splitlines()) if e["event"] == "stage_start"]
    assert stages == ["finetune_adapter"]
    assert (run / "checkpoints" / "best_model_pretrain.pt").read_bytes() == (tmp_path / "runs/bottleneck/demo-0/checkpoints/best_model_pretrain.pt").read_bytes()
    lesson = tiny | dict(teach_encoder_steps=2, teach_encoder_batch_size=4, encoder_pooling="queries")
    monkeypatch.setattr(kept, "VARIANTS", {"queries": ("", "mini", lesson, None), "short, mse": ("", "mini", lesson | dict(contrastive_weight=0.0), "queries")})
    run = kept.train("short, mse", 0)
    taken_up = {e["stage"] for e in map(json.loads, (run / "events.jsonl").read_text().splitlines()) if "stage" in e}
    assert run.name == "short-mse-0" and taken_up == {"finetune_middle", "finetune_adapter"}
    assert (run / "encoder" / "queries.safetensors").read_bytes() == (tmp_path / "runs/bottleneck/queries-0/encoder/queries.safetensors").read_bytes()


def test_mistakes_in_who_did_what():
    mistaken = script("who_did_what").mistaken
    people = [dict(type="person", text="Walter", role="lender"), dict(type="person", text="Sandra", role="borrower")]
    lend = dict(kind="money", summary="Walter will lend Sandra 20 euros. Sandra will pay it back on Friday.", facts=people)
    swapped = "Sandra will lend Walter 20 euros. Walter will pay it back on Friday."
    found = {kind: {mistaken(lend, kind, random.Random(i)) for i in range(40)} for kind in ("none", "swapped", "doubled", "begun")}
    assert found["none"] == {None} and found["swapped"] == {(lend["summary"], swapped)}
    assert found["begun"] == {(lend["summary"], swapped), ("Walter will lend", "Sandra will lend")}
    assert found["doubled"] == {(lend["summary"], s) for s in (swapped, swapped.replace("Walter", "Sandra"), swapped.replace("Sandra", "Walter"))}
    assert mistaken(dict(lend, facts=people[:1]), "swapped", random.Random(0)) is None
    some = [(r, mistaken(r, "swapped", random.Random(0))) for r in chats(60, seed=3)]
    assert any(m is None for _, m in some) and all(role_recall(m[1], r)[0] < role_recall(m[0], r)[0] for r, m in some if m)


@pytest.mark.parametrize("name,args,key", [("who_did_what", ["begun", "--steps", "2", "--rows", "6"], "role_recall"),
                                           ("who_did_what", ["fullest", "--steps", "2", "--rows", "6"], "role_recall"),
                                           ("probe", ["--rows", "80", "--held-out", "40"], "told")])
def test_scripts_of_an_experiment_run_through(name, args, key, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", [name, *args, "--output", str(tmp_path / "found.json")])
    try: script(name).main()
    finally: torch.set_num_threads(threads)
    found, = json.loads((tmp_path / "found.json").read_text())
    assert key in found and found["command"].startswith(f"python nbs/experiments/{name}.py") and found["environment"]["torch"]


@pytest.fixture
def real_chats(data, tmp_path, monkeypatch):
    "The script, with SAMSum's validation rows and its results in `tmp_path`."
    module = script("real_chats")
    folder = tmp_path / "samsum"
    folder.mkdir()
    (folder / "validation.jsonl").write_text((data / "samsum.validation.jsonl").read_text())
    monkeypatch.setattr(module, "DATA", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "found.json")
    return module


def test_what_slots_name_is_counted(real_chats, tmp_path, monkeypatch):
    "`real_chats.py named` with the built-in pair, after a short stage 0 of windows."
    cfg = Config.preset("mini").override(
        encoder_pooling="windows", prefix_len=80, embedding_normalizer="none", num_encoder_unfrozen_layers=0, teach_encoder_readout=1.0,
        teach_encoder_summaries=0.0, teach_encoder_batch_size=8, teach_encoder_steps=30, teach_encoder_learning_rate=3e-3, warmup_steps=2, messenger_rows=100,
        device="cpu", run_dir=str(tmp_path), preprocess_cache_dir=str(tmp_path / "cache"))
    taught(cfg, EventLog(), torch.device("cpu"), real_chats.load_encoder(cfg), real_chats.load_decoder(cfg))
    monkeypatch.setattr(real_chats, "config", lambda name, out: cfg)
    real_chats.named("discriminants", tmp_path, 4)
    found = json.loads((tmp_path / "found.json").read_text())["named discriminants"]
    assert found["dialogue"]["tokens"] > 50 and 0.5 < found["dialogue"]["named"] <= 1
    assert set(found["nats"]) == set(real_chats.WAYS) and min(found["nats"].values()) > 0


def test_the_ladder_of_a_variant_is_measured(real_chats, tmp_path, monkeypatch):
    "`real_chats.py ladder` with the shipped model."
    monkeypatch.setattr(real_chats, "config", lambda name, out: Config().override(run_dir="mini"))
    real_chats.ladder("laptop", tmp_path, 3)
    found = json.loads((tmp_path / "found.json").read_text())["ladder laptop"]
    assert found["rows"] == 3 and found["command"].endswith("ladder 'laptop' --rows 3")
    assert found["rungs"]["oracle"]["bits_per_text"] < found["rungs"]["null"]["bits_per_text"]


def test_a_reader_of_chats_learns_and_goes_on_where_it_was(tmp_path, monkeypatch):
    real = script("real_chats")
    cfg = Config.preset("mini").override(decoder_lora_rank=4, decoder_lora_layers="all", decoder_lora_learning_rate=3e-3, finetune_adapter_batch_size=4,
                                         warmup_steps=2, use_bf16=False, device="cpu")
    decoder = lambda: real.load_decoder(cfg, torch.device("cpu"))
    begun = lambda: dict(losses=[], seconds=0.0)
    batches = real.reader_batches(cfg, decoder(), 40)
    assert len(batches) == 10 and all((labels[:, :5] == -100).all() and (labels[:, -1:] != -100).any() for _, labels in batches) # the chat is only read
    straight = real.teach_reader(cfg, decoder(), batches, tmp_path / "straight.pt", begun())
    assert straight["rows"] == 40 and straight["losses_of_50_steps"][0] > 0
    losses = torch.load(tmp_path / "straight.pt")["losses"]
    assert sum(losses[-4:]) < sum(losses[:4])

    with monkeypatch.context() as patch:
        patch.setattr(real, "AT_ONCE", 1) # row by row
        parts = real.teach_reader(cfg, decoder(), batches[:4], tmp_path / "parts.pt", begun())
    together = real.teach_reader(cfg, decoder(), batches[:4], tmp_path / "together.pt", begun())
    assert parts["losses_of_50_steps"] == pytest.approx(together["losses_of_50_steps"], rel=1e-3)

    monkeypatch.setattr(real, "SAVED_EVERY", 5)
    with monkeypatch.context() as patch:
        save = torch.save
        def save_and_stop(*args):
            save(*args)
            raise KeyboardInterrupt
        patch.setattr(torch, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt): real.teach_reader(cfg, decoder(), batches, tmp_path / "stopped.pt", begun())
    real.teach_reader(cfg, decoder(), batches, tmp_path / "stopped.pt", torch.load(tmp_path / "stopped.pt"))
    stopped, whole = (torch.load(tmp_path / f"{name}.pt") for name in ("stopped", "straight"))
    assert stopped["losses"] == whole["losses"]
    assert all(torch.equal(a, b) for a, b in zip(stopped["corrections"].values(), whole["corrections"].values()))


RESULTS = [*EXPERIMENTS.glob("*.json"), *(EXPERIMENTS.parent.parent / "benchmarks/results").glob("*.json")]


def commands_in(found) -> list[str]:
    "All commands that a result file names, at any depth."
    if isinstance(found, list): return [command for entry in found for command in commands_in(entry)]
    if not isinstance(found, dict): return []
    own = [found["command"]] if isinstance(found.get("command"), str) else []
    if isinstance(found.get("commands"), dict): own += found["commands"].values()
    return own + [command for entry in found.values() for command in commands_in(entry)]


@pytest.mark.parametrize("path", [p for p in RESULTS if p.name != "peers.json"], ids=lambda p: p.name) # peers: read by hand
def test_a_result_file_names_its_command(path):
    commands = commands_in(json.loads(path.read_text(encoding="utf-8")))
    assert commands and all(re.match(r"([A-Z_]+=\S+ )*(python|make|latent_summ) ", command) for command in commands), commands
