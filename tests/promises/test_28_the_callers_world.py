"""The caller's environment changes no result and stops no job.

Attack: (elsewhere) every public call inside autocast, gradient and inference modes, other default dtypes and devices and deterministic algorithms; models
loaded and trained inside them; eight threads that sample at once; streams that are missing, closed, full or narrow. Here: latents made in one of these
environments are used in another, and entering a mode while a summary is streamed changes none of its words.
"""
import pytest
import torch
from test_world import WORLDS

from latent_summ.data.messenger import chats
from latent_summ.use.inference import Summarizer

ALSO = [f"test_world.py::{n}" for n in (
    "test_what_comes_out_can_be_learned_from_and_changed", "test_a_mode_of_the_caller_changes_nothing", "test_a_model_loaded_inside_a_mode_is_the_same",
    "test_default_dtypes_in_threads", "test_training_inside_modes_learns_the_same", "test_a_seed_gives_the_same_in_eight_threads", "test_no_stream_ends_the_work",
    "test_closed_and_full_streams_are_one_message", "test_with_no_stream_at_all_the_status_says_it",
    "test_a_result_in_a_narrow_encoding_is_escaped_and_it_is_said_once")]


@pytest.fixture(scope="module")
def summarizer(): return Summarizer.from_pretrained("mini", use_bf16=False, max_generation_length=12)


@pytest.fixture(scope="module")
def texts(): return [r["dialogue"] for r in chats(3, split="test")]


def test_latents_made_in_one_world_and_used_in_the_next(summarizer, texts, attacks):
    expected = summarizer.decode(summarizer.compress_meaning(summarizer.encode(texts)))
    names = list(WORLDS)
    for one, other in zip(names, names[1:] + names[:1]):
        with WORLDS[one](): latents = summarizer.encode(texts)
        with WORLDS[other](): assert summarizer.decode(summarizer.compress_meaning(latents)) == expected, (one, other)
    attacks(len(names))


def test_a_mode_entered_while_a_summary_streams(summarizer, texts, attacks):
    expected = "".join(summarizer.stream(texts[0]))
    for name in ("autocast", "no_grad", "inference"):
        pieces = summarizer.stream(texts[0])
        text = next(pieces)
        with WORLDS[name](): text += "".join(pieces)
        assert text == expected, name
    assert torch.is_grad_enabled()
    attacks(3)
