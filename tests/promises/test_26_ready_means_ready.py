"""The doctor's "Everything is ready" means that the first batch of every stage runs.

Attack: folders of every kind that loading refuses (packed weights, an adapter, code of its own, tokens and positions beyond the tables) are given to the
doctor, which must reject them in the loader's words; families that load must be reported as ready; and a stage that fails in its first batch must not be
reported as ready.
"""
from unittest.mock import patch

import pytest
from test_families import DECODERS, ENCODERS, FAULTS, GPT, REFUSED, SMALL, saved, settings
from transformers import AutoModel, AutoModelForCausalLM

from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.ui.doctor import check_first_batches, check_folder, checks, verdict
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


def test_a_decoder_that_looks_ahead_is_not_ready(tmp_path):
    "Its files are fine: only the first batches show it."
    folder = saved(AutoModelForCausalLM, "bert", REFUSED["bert"][0], tmp_path / "d")
    (check,) = check_first_batches(settings(modernbert_model="mini", modernbert_hidden_dim=160, gpt2_model=str(folder)))
    assert check.status == "fail" and "looks ahead" in check.text


def test_a_first_batch_that_fails_is_not_ready():
    def fail(*args, **options): raise RuntimeError("no kernel")
    with patch.dict("latent_summ.train.objectives.OBJECTIVES", text=fail): found = checks(settings(modernbert_hidden_dim=160, gpt2_hidden_dim=160))
    assert found[-1].name == "first batches" and found[-1].status == "fail" and "ready" not in verdict(found)
