"""Training that survives: killed anywhere and resumed, streamed or in memory, on one process or two, the weights are the same."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from forks import Command
from latent_summ import runtime
from latent_summ.train import objectives, rows as training_rows, trainer
from latent_summ.train.checkpoint import load_checkpoint, save_checkpoint
from latent_summ.config import Config
from latent_summ.train.events import EventLog
from latent_summ.runtime import CheckpointError, LatentSummError
from latent_summ.train.stages import run_pipeline

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("LATENT_SUMM_KILL_SEED", random.SystemRandom().randrange(10**6)))
CPU = torch.device("cpu")
MODES = {"stages": {}, "legacy": dict(pipeline_mode="legacy"), "phase1": dict(training_phase="phase1"), "phase2": dict(training_phase="phase2"),
         "phase3": dict(training_phase="phase3"), "live": dict(cache_use_embeddings_for_training=False, pretrain_adapter_epochs=0, finetune_adapter_epochs=0),
         "latents": dict(cache_store_latents=True)}
STREAMED = dict(rows_in_memory_gb=0.0, num_workers=2, prefetch_factor=2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory): return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module", autouse=True)
def world_of_commands():
    "What the process finds in its environment from which the others are forked."
    with mock.patch.dict(os.environ, environment()): yield


def config(folder:Path, shared:Path, **changes) -> Config:
    "A small and narrow run: 4 to 9 optimizer steps a stage, a checkpoint after every second."
    few = dict(latent_dim=64, middle_hidden_dim=64, adapter_flat_rank=16, messenger_rows=24, max_eval_samples=6, batch_size=4, num_epochs=2,
               finetune_middle_batch_size=4, gradient_accumulation_steps=2, save_every=2, warmup_steps=1,
               pretrain_middle_epochs=1, pretrain_adapter_epochs=1, finetune_middle_epochs=2, finetune_adapter_epochs=2, middle_dropout=0.1, max_generation_length=8,
               pretrain_middle_max_samples=24, pretrain_adapter_max_samples=24, pretrain_middle_max_samples_wikitext=24, pretrain_adapter_max_samples_wikitext=24)
    return Config.preset("mini").override(**few | dict(run_dir=str(folder), preprocess_cache_dir=str(shared / "cache")) | changes)


def weights(folder:Path) -> dict: return load_checkpoint(folder / "checkpoints" / "best_model.pt")[0]["model"]


def same(a:dict, b:dict) -> bool: return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def finish(cfg:Config, *more) -> Path:
    "Train, in a process of its own, to the end."
    p = start(cfg, *more).wait()
    assert p.returncode == 0, p.stdout[-4000:]
    return Path(cfg.run_dir)


def start(cfg:Config, *more, **variables) -> Command:
    "Begin to train in a process of its own."
    cfg.save(Path(cfg.run_dir + ".json"))
    return Command(["train", "--config", cfg.run_dir + ".json", *more], **variables)


def start_two(cfg:Config, *more) -> list:
    "Begin to train in two processes that work together, as torchrun starts them."
    port = str(random.SystemRandom().randrange(20000, 40000))
    world = dict(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    return [start(cfg, *more, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]


def finish_two(cfg:Config, *more) -> Path:
    "Train in two processes to the end."
    for p in start_two(cfg, *more):
        done = p.wait()
        assert done.returncode == 0, done.stdout[-4000:]
    return Path(cfg.run_dir)


def environment() -> dict: return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def events(folder:Path) -> list:
    "What the log says so far; a torn last line is left out."
    try: lines = (folder / "events.jsonl").read_text().split("\n")
    except FileNotFoundError: return []
    return [json.loads(line) for line in lines[:-1] if line]


def wait_for_steps(folder:Path, steps:int, processes:list):
    "Return when the log has `steps` more step events than now, or the first process has ended."
    goal = steps + sum(e["event"] == "step" for e in events(folder))
    while processes[0].poll() is None and sum(e["event"] == "step" for e in events(folder)) < goal: time.sleep(0.005)


def killed(cfg:Config, steps:int, *more, sign=signal.SIGKILL) -> tuple:
    "Start training and send a signal when the log has `steps` more step events than before; returns status and output."
    p = start(cfg, *more)
    wait_for_steps(Path(cfg.run_dir), steps, [p])
    p.kill(sign)
    done = p.wait(120)
    return done.returncode, done.stdout


def straight(shared:Path, mode:str="stages") -> Path:
    "The folder of a run that nobody disturbs, made once."
    cfg = config(shared / f"{mode}-straight", shared, **MODES[mode])
    if not (shared / f"{mode}-straight" / "checkpoints" / "best_model.pt").exists(): run_pipeline(cfg)
    return Path(cfg.run_dir)


# --- promise 2: resume is bit-identical -------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", MODES)
def test_killed_anywhere_and_resumed_gives_the_same_weights(mode, shared):
    whole, torn = straight(shared, mode), config(shared / f"{mode}-torn", shared, **MODES[mode])
    total = sum(e["event"] == "step" for e in events(whole))
    draw = random.Random(f"{SEED} {mode}")
    first = draw.randrange(1, total)
    print(f"seed {SEED}: {mode} killed after {first} of {total} steps")
    status, _ = killed(torn, first)
    assert status == -signal.SIGKILL
    if mode == "stages": killed(torn, draw.randrange(1, 4), "--resume")  # twice, perhaps in the same epoch
    finish(torn, "--resume") if (Path(torn.run_dir) / "events.jsonl").exists() else finish(torn)
    assert same(weights(whole), weights(Path(torn.run_dir))), f"LATENT_SUMM_KILL_SEED={SEED}"


def test_streamed_rows_give_the_run_of_rows_in_memory_also_when_killed(shared):
    cfg = config(shared / "streamed", shared, **STREAMED)
    heard = []
    run_pipeline(cfg, listeners=(heard.append,))
    assert same(weights(shared / "streamed"), weights(straight(shared)))
    floats = dict(cache_store_embeddings_int8=False, pretrain_middle_epochs=0, pretrain_middle_max_samples=None, pretrain_adapter_epochs=0,
                  finetune_adapter_epochs=0)
    kept, read = (weights(run_pipeline(config(shared / f"floats{len(more)}", shared, **floats, **more))) for more in ({}, STREAMED))
    assert same(kept, read)
    torn = config(shared / "streamed-torn", shared, **STREAMED)
    killed(torn, random.Random(SEED).randrange(2, 12))
    finish(torn, "--resume")
    assert same(weights(shared / "streamed-torn"), weights(straight(shared))), f"LATENT_SUMM_KILL_SEED={SEED}"


# --- latents in the cache ---------------------------------------------------------------------------------------------

def shapes(cfg:Config) -> dict:
    "What the caches of a run hold for a text, by source."
    found = {p.name.rsplit("-", 1)[0]: json.loads((p / "manifest.json").read_text()) for p in Path(cfg.preprocess_cache_dir).iterdir()}
    return {name: m["fields"]["embedding"]["shape"] for name, m in found.items() if name.endswith("-train")}


def test_cached_latents_train_the_model_that_cached_vectors_train(tmp_path):
    exact = dict(use_bf16=False, cache_store_embeddings_int8=False, embedding_normalizer="none", optimizer="adamw", finetune_adapter_epochs=0)
    one, other = (config(tmp_path / str(on), tmp_path, cache_store_latents=on, **exact) for on in (False, True))
    a, b = weights(run_pipeline(one)), weights(run_pipeline(other))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-3) for k in a), {k: (a[k] - b[k]).abs().max().item() for k in a}


@pytest.mark.parametrize("mode, texts, pairs", [("stages", [8, 160], [8, 64]), ("frozen", [8, 64], [8, 64]), ("legacy", None, [8, 160]), ("phase1", None, [8, 64])])
def test_latents_are_cached_where_their_head_learns_no_more(mode, texts, pairs, tmp_path):
    changes = dict(freeze_encoder_compression_in_pipeline=True) if mode == "frozen" else MODES[mode] | (dict(num_encoder_unfrozen_layers=0) if mode == "legacy" else {})
    cfg = config(tmp_path / "run", tmp_path, cache_store_latents=True, finetune_adapter_epochs=0, **changes)
    heard = []
    run_pipeline(cfg, listeners=(heard.append,))
    assert shapes(cfg) == {k: v for k, v in {"messenger-texts-train": texts, "messenger-train": pairs}.items() if v}
    order = [e.get("source", e.get("stage")) for e in heard if e["event"] in ("preprocess", "stage_end")]
    if mode == "stages": assert order.index("pretrain_adapter") < order.index("pairs/train") < order.index("finetune_middle")


def test_another_head_is_another_cache_and_a_run_takes_up_its_own(tmp_path):
    from latent_summ.encode import embed
    cfg = config(tmp_path / "run", tmp_path, cache_store_latents=True, run_finetuning=False)
    run_pipeline(cfg)
    finetuning = cfg.override(run_finetuning=True, run_pretraining=False, finetune_adapter_epochs=0)
    cfg_file = Path(tmp_path / "cfg.json")
    finetuning.save(cfg_file)
    made = Command(["cache", "--config", cfg_file]).wait()
    assert made.returncode == 0 and "2 caches" in made.stdout, made.stdout
    with mock.patch.object(embed.Embedder, "batch", side_effect=AssertionError): # nothing is embedded any more
        run_pipeline(finetuning.override(run_preprocessing=False), overwrite=True)
    other = config(tmp_path / "other", tmp_path, cache_store_latents=True, run_finetuning=False, seed=1)
    run_pipeline(other)
    with pytest.raises(runtime.CacheError, match="encoder.head '"):
        run_pipeline(other.override(run_finetuning=True, run_pretraining=False, run_preprocessing=False), overwrite=True)


def test_finetuning_may_add_a_correction_of_the_decoder(tmp_path):
    "Stages 1-3 leave the decoder alone, so a pretraining without a correction serves one with it; another rank than before does not."
    cfg = config(tmp_path / "run", tmp_path, finetune_middle_epochs=0)
    before = weights(run_pipeline(cfg.override(run_finetuning=False)))
    assert not any(k.startswith("decoder_lora") for k in before)
    corrected = cfg.override(run_pretraining=False, decoder_lora_rank=2)
    after = weights(run_pipeline(corrected, overwrite=True))
    ups = [v for k, v in after.items() if k.startswith("decoder_lora") and k.endswith("up.weight")]
    assert ups and all(v.abs().max() > 0 for v in ups)
    (tmp_path / "run/checkpoints" / cfg.finetune_best_model_filename).rename(tmp_path / "run/checkpoints" / cfg.pretrain_best_model_filename)
    with pytest.raises(runtime.LatentSummError, match="decoder_lora_rank is 2, not 3"):
        run_pipeline(corrected.override(decoder_lora_rank=3), overwrite=True)


# --- promise 1: complete or invisible ---------------------------------------------------------------------------------

def test_a_damaged_newest_checkpoint_is_passed_over_and_named(shared, capsys):
    cfg = config(shared / "damaged", shared)
    killed(cfg, 9)
    steps = sorted((shared / "damaged" / "checkpoints").glob("step-*.pt"), key=lambda p: p.stat().st_mtime)
    data = bytearray(steps[-1].read_bytes())
    data[len(data) // 2] ^= 1
    steps[-1].write_bytes(data)
    run_pipeline(cfg, resume=True)
    assert f"{steps[-1].name}" in (err := capsys.readouterr().err) and "skipped" in err
    assert same(weights(shared / "damaged"), weights(straight(shared)))


# --- promise 6: other settings are refused ----------------------------------------------------------------------------

@pytest.mark.parametrize("change, words", [(dict(batch_size=16), "batch_size was 4, now 16"), (dict(gradient_accumulation_steps=1), "gradient_accumulation_steps was 2, now 1"),
                                           (dict(middle_transformer_layers=3), "middle_transformer_layers was 2, now 3"), (dict(seed=1), "seed was 42, now 1")])
def test_resuming_with_other_settings_is_refused(change, words, shared):
    with pytest.raises(CheckpointError, match=words): run_pipeline(config(straight(shared), shared, **change), resume=True)


# --- promise 22: Ctrl-C -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_at_the_next_step_and_says_how_to_go_on(sign, shared):
    cfg = config(shared / f"ctrl-c-{sign}", shared, save_every=1000, **(STREAMED if sign == signal.SIGTERM else {}))
    status, said = killed(cfg, 4, sign=sign) # stage 1 has three: a signal between two stages would stop at once
    assert status == 130 and "--resume continues from here" in said and "Traceback" not in said, said
    finish(cfg, "--resume")
    assert same(weights(Path(cfg.run_dir)), weights(straight(shared)))


# --- several processes ------------------------------------------------------------------------------------------------

def close(a:dict, b:dict) -> bool: return a.keys() == b.keys() and all(torch.allclose(a[k].float(), b[k].float(), atol=2e-4) for k in a)


def test_two_processes_train_as_one_with_twice_the_accumulation(shared):
    plain = dict(use_stop_latent=False, latent_mixing=0.0, middle_dropout=0.0, use_bf16=False, optimizer="adamw", learning_rate=1e-3)
    one = finish(config(shared / "one", shared, gradient_accumulation_steps=2, **plain))
    two = finish_two(config(shared / "two", shared, gradient_accumulation_steps=1, **plain))
    assert close(weights(one), weights(two))
    torn = config(shared / "two-to-one", shared, gradient_accumulation_steps=1, **plain)
    ranks = start_two(torn)
    wait_for_steps(Path(torn.run_dir), 7, ranks)
    for p in ranks: p.kill()
    assert {p.wait(120).returncode for p in ranks} == {-signal.SIGKILL}
    killed(torn.override(gradient_accumulation_steps=2), 3, "--resume")
    finish_two(torn, "--resume")
    assert close(weights(one), weights(Path(torn.run_dir)))
    assert all(not k.startswith("module.") for k in weights(two))


# --- one step ---------------------------------------------------------------------------------------------------------

class Toy(torch.nn.Module):
    def __init__(self): super().__init__(); self.part = torch.nn.Linear(4, 4, bias=False)


def toy(cfg:Config, log=None, folder=None, loss=None, n=24) -> trainer.Trainer:
    torch.manual_seed(0)
    model = Toy()
    def square(batch, progress): return model.part(batch["inputs"]).pow(2).mean(), {}
    rows = training_rows.StageRows(torch.randn(n, 1, 4), ids=[f"row{i}" for i in range(n)])
    return trainer.Trainer(trainer.Job("toy", model, ("part",), rows, loss or square, 2, cfg.batch_size), cfg, CPU, log, folder=folder)


PLAIN = Config(device="cpu", use_bf16=False, batch_size=4, gradient_accumulation_steps=2, warmup_steps=0, learning_rate=1e-2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient norm"])
def test_promise_14_what_is_not_a_number_is_never_stepped_on(bad, where):
    t = toy(PLAIN)
    def loss(batch, progress):
        y = t.job.model.part(batch["inputs"]).pow(2).mean()
        if t.at.step == 3: y = y * bad if where == "loss" else y + (t.job.model.part.weight * 0).sqrt().sum() * (1 if bad != bad else 1e30)
        return y, {}
    t.job.loss = loss
    before = {}
    step = t._step
    def remember(*a): before.update(trainer.snapshot(t.job.model.state_dict())); step(*a)
    t._step = remember
    with pytest.raises(LatentSummError, match=rf"The {where} became .* step 4.*Rows: \['row"): t.run()
    assert t.at.step == 3 and same(before, t.job.model.state_dict())


def test_fp16_gradients_are_scaled_and_an_overflow_skips_the_step(tmp_path):
    plain = toy(PLAIN).run().state_dict()
    with mock.patch.object(trainer, "autocast_dtype", return_value=torch.float16): t = toy(PLAIN, folder=tmp_path)
    assert t.scaler.is_enabled() and t.scaler.get_scale() > 1
    t.run()
    assert all(torch.allclose(plain[k], v, atol=1e-6) for k, v in t.job.model.state_dict().items())
    t.at.epoch, t.job.rows = 1, training_rows.StageRows(torch.full((8, 1, 4), 1e30))
    before, scale = trainer.snapshot(t.job.model.state_dict()), t.scaler.get_scale()
    t.at.batch, t.steps = 0, 1000
    def overflow(batches, spare):
        for _, p in t.named: p.grad = torch.full_like(p, float("inf"))
        return {"loss": 1.0}
    with mock.patch.object(t, "_backward", overflow): t.run()
    assert same(before, t.job.model.state_dict()) and t.scaler.get_scale() < scale
    t.checkpoint()
    with mock.patch.object(trainer, "autocast_dtype", return_value=torch.float16): other = toy(PLAIN)
    other.steps = 1000
    other.restore(trainer.step_files(tmp_path)[-1])
    assert other.scaler.get_scale() == t.scaler.get_scale()


def test_fp16_leaves_the_decoder_in_fp32():
    from latent_summ.encode import backbones
    from latent_summ.model.model import LatentSummarizer
    cfg = Config.preset("mini").override(embedding_normalizer="none", readout_weight=0.0, readout_warmup=0.0, use_stop_latent=False)
    decoder, model, seen = backbones.load_decoder(cfg, CPU), LatentSummarizer(cfg), []
    def spy(decoder, prefix, labels): seen.append(torch.is_autocast_enabled("cpu")); return objectives.prefix_loss.real(decoder, prefix, labels)
    spy.real = objectives.prefix_loss
    def dtype(cfg, device, decoder=False): return torch.float32 if decoder else torch.float16
    batch = dict(inputs=torch.randn(2, 8, 256), labels=torch.tensor([[5, 6], [7, 1]]))
    with mock.patch.object(objectives, "prefix_loss", spy), mock.patch.object(runtime, "autocast_dtype", dtype), runtime.autocast(cfg, CPU):
        assert torch.is_autocast_enabled("cpu")
        loss, _ = objectives.text_loss(model, decoder, cfg, batch)
        assert torch.is_autocast_enabled("cpu")
    loss.backward()
    assert seen == [False] and loss.dtype == torch.float32 and model.adapter.queries.grad.isfinite().all()


def test_promise_20_a_compiled_model_has_plain_names(tmp_path):
    t = toy(PLAIN, folder=tmp_path)
    t.job.model.part.compile(backend="eager")
    t.run()
    t.checkpoint()
    assert list(load_checkpoint(trainer.step_files(tmp_path)[-1])[0]["model"]) == ["part.weight"]


# --- promises 3 and 4: background saves -------------------------------------------------------------------------------

def test_promise_3_a_background_save_is_one_moment(tmp_path):
    from latent_summ.train import checkpoint
    released, saver, x = [], checkpoint.Saver(), torch.zeros(1000)
    def slow(*a):
        while not released: time.sleep(0.01)
        return save_checkpoint(*a)
    with mock.patch.object(checkpoint, "save_checkpoint", slow):
        saver.save(tmp_path / "a.pt", dict(x=x, nested=[x]), dict(step=1))
        x += 1
        released.append(True)
        saver.close()
    tensors, _ = load_checkpoint(tmp_path / "a.pt")
    assert not tensors["x"].any() and not tensors["nested"][0].any() and x.all()


@pytest.mark.parametrize("when", ["next save", "wait", "close"])
def test_promise_4_a_failed_background_save_is_raised(when, tmp_path):
    from latent_summ.train import checkpoint
    saver = checkpoint.Saver()
    with mock.patch.object(checkpoint, "save_checkpoint", side_effect=OSError("no space")):
        saver.save(tmp_path / "a.pt", {}, {})
        saver.jobs.join()
        with pytest.raises(CheckpointError, match="no space"):
            if when == "next save": saver.save(tmp_path / "b.pt", {}, {})
            else: getattr(saver, when)()


def test_promise_7_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    t = toy(PLAIN.override(save_every=1), folder=tmp_path)
    t.at.step = 1
    t.checkpoint()
    good = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with mock.patch("torch.save", side_effect=OSError(28, "No space left on device")), pytest.raises(LatentSummError, match="No space left"):
        t.at.step = 2
        t.checkpoint()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == good


def test_promise_5_a_save_lies_on_a_step_boundary(tmp_path):
    heard = []
    toy(PLAIN.override(save_every=1, keep_checkpoints=99), EventLog(listeners=[heard.append]), tmp_path).run()
    positions = [load_checkpoint(p)[1]["position"] for p in trainer.step_files(tmp_path)]
    assert [(p["step"], p["batch"]) for p in positions] == [(s, b) for s, b in zip(range(1, 7), [2, 4, 6] * 2)]
    assert sum(e["event"] == "step" for e in heard) == 6


class Numbers:
    "A cache of ten rows, as far as a loader sees it."
    def take(self, rows, fields): return {"embedding": np.array(rows, np.float32)[:, None]}


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_batches_leaves_torchs_generator_alone(workers):
    "Streamed batches draw nothing from the generator that dropout uses."
    rows, state = training_rows.CachedRows([(Numbers(), range(10))], dict(inputs="embedding")), torch.get_rng_state()
    read = [b["inputs"].flatten().tolist() for b in rows.loader([[3, 1], [2]], Config(num_workers=workers))]
    assert read == [[3, 1], [2]] and torch.equal(state, torch.get_rng_state())


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs SIGALRM")
def test_a_program_that_fails_does_not_wait_for_its_loaders():
    "An error that nobody catches keeps the loader alive to the end of the program."
    script = """
import numpy as np
from latent_summ.train import rows as training_rows
from latent_summ.config import Config
class Numbers:
    def take(self, rows, fields): return {"embedding": np.zeros((len(rows), 1), np.float32)}
training_rows._LAST_SECONDS = 1
batches = training_rows.CachedRows([(Numbers(), range(9))], dict(inputs="embedding")).loader([[i] for i in range(9)], Config(num_workers=1))
next(batches), 1 / 0"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1 and "ZeroDivisionError" in ended.stderr


def test_only_the_first_process_speaks(capsys):
    with mock.patch.dict(os.environ, RANK="1"): runtime.say_once("from the second process")
    with mock.patch.dict(os.environ, RANK="0"): runtime.say_once("from the first process")
    assert "second" not in (err := capsys.readouterr().err) and "first" in err
