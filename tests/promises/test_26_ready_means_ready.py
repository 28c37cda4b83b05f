"""The doctor's "Everything is ready" means that the first batch of every stage runs.

Attack: folders of every kind that loading refuses (packed weights, an adapter, code of its own, tokens and positions beyond the tables) are given to the
doctor, which must reject them in the loader's words; families that load must be reported as ready; and a stage that fails in its first batch must not be
reported as ready.
"""
from unittest.mock import patch

import pytest
from test_families import DECODERS, ENCODERS, FAULTS, GPT, REFUSED, REFUSED_ENCODERS, SMALL, saved, settings
from transformers import AutoModel, AutoModelForCausalLM

from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.ui.doctor import check_first_batches, checks, verdict
from latent_summ.ui.inputs import check_folder
from latent_summ.runtime import ModelError

ALSO = []
PARTS = dict(encoder=(AutoModel, "bert", load_encoder, "modernbert_model", "modernbert_hidden_dim"),
             decoder=(AutoModelForCausalLM, "llama", load_decoder, "gpt2_model", "gpt2_hidden_dim"))


@pytest.mark.parametrize("what", PARTS)
def test_what_loading_refuses_the_doctor_refuses(what, tmp_path, attacks):
    auto, family, load, field, width = PARTS[what]
    for name, (change, _) in FAULTS.items():
        folder = saved(auto, family, SMALL, tmp_path / name)
        assert check_folder(what, folder, settings(**{field: str(folder)}), width).status == "ok"
        change(folder)
        cfg = settings(**{field: str(folder)})
        with pytest.raises(ModelError) as e: load(cfg)
        found = check_folder(what, folder, cfg, width)
        assert (found.status, found.text) == ("fail", str(e.value)), name
    attacks(len(FAULTS))


def test_too_few_positions(tmp_path):
    encoder = saved(AutoModel, "bert", SMALL | dict(max_position_embeddings=40), tmp_path / "e")
    decoder = saved(AutoModelForCausalLM, "gpt2", GPT | dict(n_positions=20), tmp_path / "d")
    cfg = settings(modernbert_model=str(encoder), gpt2_model=str(decoder))
    found = [check_folder("encoder", encoder, cfg, "modernbert_hidden_dim"), check_folder("decoder", decoder, cfg, "gpt2_hidden_dim")]
    for check, load in zip(found, (load_encoder, load_decoder)):
        with pytest.raises(ModelError) as e: load(cfg)
        assert check.status == "fail" and check.text == str(e.value)


def test_every_family_that_loads_passes(tmp_path, attacks):
    for family, about in ENCODERS.items():
        folder = saved(AutoModel, family, about, tmp_path / f"e-{family}")
        assert check_folder("encoder", folder, settings(), "modernbert_hidden_dim").status == "ok", family
    for family, about in DECODERS.items():
        folder = saved(AutoModelForCausalLM, family, about, tmp_path / f"d-{family}")
        cfg = settings(gpt2_hidden_dim=16 if family == "opt" else 32)
        assert check_folder("decoder", folder, cfg, "gpt2_hidden_dim").status == "ok", family
    attacks(len(ENCODERS) + len(DECODERS))


@pytest.mark.parametrize("reads, writes", [("t5", "phi"), ("roberta", "gemma3")])
def test_found_ready_and_every_stage_runs(reads, writes, tmp_path):
    encoder, decoder = saved(AutoModel, reads, ENCODERS[reads], tmp_path / "e"), saved(AutoModelForCausalLM, writes, DECODERS[writes], tmp_path / "d")
    (check,) = check_first_batches(settings(modernbert_model=str(encoder), gpt2_model=str(decoder), embedding_normalizer="none"))
    assert check.status == "ok" and "4 stages ran" in check.text, check


@pytest.mark.parametrize("what, family", [*(("encoder", f) for f in REFUSED_ENCODERS), *(("decoder", f) for f in REFUSED)])
def test_a_family_that_loading_refuses_is_not_ready(what, family, tmp_path, attacks):
    "The files of some are fine, and only the first batches show it: in the loader's words either way, and never with --quick."
    auto, _, load, field, width = PARTS[what]
    about = (REFUSED_ENCODERS if what == "encoder" else REFUSED)[family][0]
    folder = saved(AutoModel if family == "t5" else auto, family, about, tmp_path / "x")
    small = dict(encoder="gpt2_hidden_dim", decoder="modernbert_hidden_dim")[what] # the other backbone is mini
    cfg = settings(**{field: str(folder), small: 160})
    with pytest.raises(ModelError) as e: load(cfg)
    for quick in (False, True):
        found = checks(cfg, quick)
        assert "ready" not in verdict(found)
        if not quick: assert str(e.value) in {c.text for c in found if c.status == "fail"}
    attacks(1)


def test_what_was_not_tried_is_not_ready(tmp_path):
    "Left out, or not on this machine yet: the last line does not say that everything is ready."
    mini = settings(modernbert_hidden_dim=160, gpt2_hidden_dim=160)
    quick = checks(mini, quick=True)
    assert (quick[-1].name, quick[-1].status) == ("first batches", "warn") and "ready" not in verdict(quick)
    with (patch("latent_summ.ui.doctor.ask_model", lambda name: None), patch("latent_summ.ui.doctor.is_cached", lambda name, kind: False),
          patch("latent_summ.ui.inputs.is_cached", lambda name, kind: False),
          patch("huggingface_hub.is_offline_mode", lambda: False)):
        far = checks(mini.override(gpt2_model="some/model"))
    assert (far[-1].name, far[-1].status) == ("first batches", "warn") and "hf download" in far[-1].next_step and "ready" not in verdict(far)


def test_a_first_batch_that_fails_is_not_ready():
    def fail(*args, **options): raise RuntimeError("no kernel")
    with patch.dict("latent_summ.train.objectives.OBJECTIVES", text=fail): found = checks(settings(modernbert_hidden_dim=160, gpt2_hidden_dim=160))
    assert found[-1].name == "first batches" and found[-1].status == "fail" and "ready" not in verdict(found)
