"""Resuming with another batch size, accumulation or architecture is refused, and both values are named.

Attack: every field that belongs to the training's or the model's fingerprint is changed, one at a time, before resuming from a checkpoint.
"""
import pytest
from toys import CFG, newest_step, train

from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.config import fields_of
from latent_summ.runtime import CheckpointError
from latent_summ.train.trainer import check_same_training

ALSO = ["test_training.py::test_resuming_with_other_settings_is_refused"]


def other(value):
    if isinstance(value, bool): return not value
    if isinstance(value, str): return value + "x"
    return 2 if value is None else value + 1


def test_every_field_of_the_fingerprints(tmp_path, attacks):
    train(tmp_path)
    meta = load_checkpoint(newest_step(tmp_path))[1]
    check_same_training(meta, CFG, meta["window"], "a.pt")
    names = list(dict.fromkeys(fields_of("training") + fields_of("model")))
    for name in names:
        if name == "gradient_accumulation_steps": continue  # compared as batches per step: the next test
        was = other(meta["config"][name])
        with pytest.raises(CheckpointError) as e: check_same_training(meta | dict(config=meta["config"] | {name: was}), CFG, meta["window"], "a.pt")
        assert f"{name} was {was!r}, now {getattr(CFG, name)!r}" in str(e.value)
    attacks(len(names) - 1)


@pytest.mark.parametrize("window", [1, 3, 4])
def test_another_number_of_batches_for_a_step(window, tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError, match=f"gradient_accumulation_steps was 2, now {window}"):
        train(tmp_path, CFG.override(gradient_accumulation_steps=window), resume=True)


def test_other_rows(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError, match="the rows have changed"): train(tmp_path, resume=True, n=24)
