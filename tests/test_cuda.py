"""What a GPU can do differently: numbers, precisions, gradient checkpointing, going on. Marked `cuda`, and skipped where there is no GPU.

LATENT_SUMM_TEST_DEVICE=cpu runs them on the CPU instead (those that need a GPU's precisions stay skipped), so that they can be tried without one.
"""
import os

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.train.checkpoint import load_checkpoint, save_checkpoint
from latent_summ.config import Config
from latent_summ.model.decode import generate
from latent_summ.model.head import prefix_loss
from latent_summ.encode.embedder import embed_texts
from latent_summ.train.events import EventLog
from latent_summ.model.model import LatentSummarizer
from latent_summ.runtime import autocast, autocast_dtype
from latent_summ.train.stages import _speed_up
from latent_summ.plan import stage_table
from latent_summ.train.objectives import stage_objective, text_loss
from latent_summ.train.rows import with_latents, StageRows, Vectors, to_device
from latent_summ.train.trainer import Job, Trainer, set_trainable, step_files

NAME = os.environ.get("LATENT_SUMM_TEST_DEVICE", "cuda")
HERE, CPU = torch.device(NAME), torch.device("cpu")
MINI = Config.preset("mini").override(device=NAME, use_bf16=False, use_fp16=False, use_stop_latent=False, readout_warmup=0.0, readout_weight=0.0,
                                       embedding_normalizer="none")
TEXTS = ["Anna: can you lend me your tent?\nBen: sure, pick it up on Friday", "Ok", "Where shall we meet? " * 12]

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(HERE.type == "cuda" and not torch.cuda.is_available(), reason="no GPU here")]
only_gpu = pytest.mark.skipif(HERE.type != "cuda", reason="a GPU's precision")


@pytest.fixture(autouse=True)
def no_tf32():
    "fp32 is compared as fp32."
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def fresh(cfg=MINI, device=HERE):
    "A model with the same weights each time, and a decoder."
    decoder = load_decoder(cfg, device)
    torch.manual_seed(0)
    return LatentSummarizer(cfg, decoder.embedding_rms).to(device).requires_grad_(False).eval(), decoder


def job(cfg=MINI, device=HERE, stage="finetune_adapter", rows=12, epochs=2):
    "A stage of the mini preset on made rows."
    model, decoder = fresh(cfg, device)
    g = torch.Generator().manual_seed(1)
    inputs = Vectors(torch.randn(rows, cfg.latent_seq_len, cfg.modernbert_hidden_dim, generator=g))
    stage, = [s for s in stage_table(cfg) if s.name == stage]
    targets = [torch.randint(5, 3000, (4 + i % 5,), generator=g).tolist() + [decoder.eos_id] for i in range(rows)] if "text" in stage.wants else None
    outputs = Vectors(torch.randn(rows, cfg.latent_seq_len, cfg.modernbert_hidden_dim, generator=g)) if "latents" in stage.wants else None
    def loss(batch, progress): return stage_objective(stage)(model, decoder, cfg, with_latents(batch, model.document_latents), progress)
    return Job(stage.name, model, stage.trains, StageRows(inputs, outputs, targets), loss, epochs, 4)


def losses(cfg=MINI, device=HERE, **which) -> list:
    heard = []
    Trainer(job(cfg, device, **which), cfg, device, EventLog(listeners=(heard.append,))).run()
    return [e["loss"] for e in heard if e["event"] == "step"]


# --- the same numbers as on the CPU -----------------------------------------------------------------------------------

def test_embeddings_are_those_of_the_cpu():
    there, here = (embed_texts(MINI, load_encoder(MINI, d), TEXTS, d) for d in (CPU, HERE))
    assert np.abs(there - here).max() < 1e-3 * np.abs(there).max()


@only_gpu
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_embeddings_in_bf16_point_the_same_way(attention):
    cfg = MINI.override(use_bf16=True, attn_implementation=attention)
    there, here = embed_texts(MINI, load_encoder(MINI, CPU), TEXTS, CPU), embed_texts(cfg, load_encoder(cfg, HERE), TEXTS, HERE)
    cosine = (there * here).sum(-1) / np.linalg.norm(there, axis=-1) / np.linalg.norm(here, axis=-1)
    assert cosine.min() > 0.99


@pytest.mark.parametrize("stage", ["finetune_middle", "finetune_adapter"])
def test_training_takes_the_same_steps(stage):
    cfg = MINI.override(middle_dropout=0.0, adapter_dropout=0.0)
    np.testing.assert_allclose(losses(cfg, HERE, stage=stage), losses(cfg, CPU, stage=stage), rtol=2e-3)


def test_the_same_words_are_written():
    cfg = MINI.override(max_generation_length=12)
    latents = torch.nn.functional.normalize(torch.randn(3, cfg.latent_seq_len, cfg.latent_dim, generator=torch.Generator().manual_seed(2)), dim=-1)
    def written(device):
        model, decoder = fresh(cfg, device)
        with torch.inference_mode(): return generate(decoder, model.prefix(latents.to(device)), cfg)
    assert written(HERE) == written(CPU)


# --- precisions -------------------------------------------------------------------------------------------------------

@only_gpu
def test_fp16_never_reaches_the_decoder():
    cfg = MINI.override(use_fp16=True, use_bf16=False)
    assert autocast_dtype(cfg, HERE) is torch.float16 and autocast_dtype(cfg, HERE, decoder=True) is torch.float32
    (model, decoder), seen = fresh(cfg), []
    for layer in decoder.model.base_model.layers: layer.register_forward_hook(lambda m, a, out: seen.append((out[0] if isinstance(out, tuple) else out).dtype))
    batch = dict(inputs=torch.randn(2, cfg.latent_seq_len, cfg.latent_dim, device=HERE), labels=torch.full((2, 3), 7, device=HERE))
    with autocast(cfg, HERE): loss, _ = text_loss(model, decoder, cfg, batch)
    assert seen and torch.float16 not in seen and torch.isfinite(loss)
    assert Trainer(job(cfg), cfg, HERE).scaler.is_enabled()


@only_gpu
def test_fp16_skips_a_step_that_overflows_and_goes_on():
    cfg = MINI.override(use_fp16=True, use_bf16=False, gradient_accumulation_steps=1)
    one = job(cfg)
    inner, calls = one.loss, []
    def loss(batch, progress):
        calls.append(1)
        total, parts = inner(batch, progress)
        return (total * float("inf") if len(calls) == 1 else total), parts
    one.loss = loss
    trainer = Trainer(one, cfg, HERE)
    trainer.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    before = {n: p.clone() for n, p in trainer.named}
    trainer._backward([to_device(one.rows.batch([0, 1]), HERE)])
    trainer._update([[0, 1]])
    assert all(torch.equal(p, before[n]) for n, p in trainer.named), "a step was taken on something that is not a number"
    assert trainer.scaler.get_scale() < 2.0**10
    trainer._backward([to_device(one.rows.batch([2, 3]), HERE)])
    trainer._update([[2, 3]])
    assert any(not torch.equal(p, before[n]) for n, p in trainer.named) and all(torch.isfinite(p).all() for _, p in trainer.named)


# --- gradient checkpointing -------------------------------------------------------------------------------------------

def gradients(checkpointing:bool) -> dict:
    cfg = MINI.override(use_gradient_checkpointing=checkpointing, adapter_dropout=0.0)
    model, decoder = fresh(cfg)
    _speed_up(cfg, model, decoder, torch.device("cuda"))  # what it does is asked for on a GPU, and works anywhere
    named = set_trainable(model, ("adapter",))
    latents = torch.nn.functional.normalize(torch.randn(2, cfg.latent_seq_len, cfg.latent_dim, generator=torch.Generator().manual_seed(3)), dim=-1).to(HERE)
    labels = pad_sequence([torch.tensor([9, 8, 7, 1]), torch.tensor([5, 1])], batch_first=True, padding_value=-100).to(HERE)
    total, tokens = prefix_loss(decoder, model.prefix(latents), labels)
    (total / tokens).backward()
    return {n: p.grad for n, p in named}


def test_gradient_checkpointing_changes_no_gradient():
    a, b = gradients(False), gradients(True)
    assert a.keys() == b.keys() and any(g.abs().max() > 0 for g in a.values())
    for name in a: torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


@only_gpu
def test_gradient_checkpointing_saves_memory():
    def peak(on):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        gradients(on)
        return torch.cuda.max_memory_allocated()
    assert peak(True) < peak(False)


# --- going on ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=only_gpu)])
def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path, precision):
    cfg = MINI.override(save_every=2, keep_checkpoints=9, gradient_accumulation_steps=1, use_fp16=precision == "fp16")
    whole = job(cfg)
    Trainer(whole, cfg, HERE, folder=tmp_path).run()
    again = job(cfg)
    resumed = Trainer(again, cfg, HERE, folder=tmp_path/"again")
    resumed.restore(step_files(tmp_path)[0])
    assert 0 < resumed.at.step < resumed.steps
    resumed.run()
    for name, p in whole.model.state_dict().items(): torch.testing.assert_close(again.model.state_dict()[name], p, rtol=1e-5, atol=1e-6)


def test_what_was_saved_here_loads_on_the_cpu(tmp_path):
    model, _ = fresh()
    save_checkpoint(tmp_path/"m.pt", dict(model=model.state_dict()), {})
    tensors, _ = load_checkpoint(tmp_path/"m.pt")
    assert all(t.device == CPU for t in tensors["model"].values())
    for name, p in model.state_dict().items(): assert torch.equal(tensors["model"][name], p.cpu())
