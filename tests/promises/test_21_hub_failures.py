"""A gated, missing, offline or half-downloaded model gives one message with the id, the case, the next step and an alternative; a token is never printed.

Attack: (elsewhere) a hub on the loopback interface refuses in every possible way, breaks off in the middle, and flips a bit; every file that a run leaves
is searched for the token. Here: tokens of each kind inside error messages and settings, which then appear in messages and model cards; and the record of a
stored stream is damaged in every way, even to point outside its folder.
"""
import json

import pytest
from fuzz import VALUES, restructured

from latent_summ.config import Config
from latent_summ.data.hub import first_line, read_book
from latent_summ.use.share import model_card

ALSO = [f"test_hub.py::{n}" for n in ("test_cache_and_train_by_the_default_names",
                                      "test_every_refusal_of_a_dataset", "test_every_refusal_of_a_model",
                                      "test_nothing_answers",
                                      "test_offline_with_and_without_a_cache", "test_a_broken_connection_costs_only_what_is_missing")]
TOKEN = "hf_" + "AbCdEfGhIj" * 3


@pytest.mark.parametrize("text", ["Invalid {}", "https://user:{}@huggingface.co/x", "Authorization: Bearer {}", "{}", "x" * 290 + "{}", "a={}&b=1", "\n\n  {} in a later line"])
def test_a_token_in_an_error(text, monkeypatch):
    assert TOKEN not in first_line(ValueError(text.format(TOKEN)))
    monkeypatch.setenv("HF_TOKEN", "an-older-kind-of-token")
    assert "an-older-kind-of-token" not in first_line(ValueError(text.format("an-older-kind-of-token")))


def test_a_token_in_a_setting_stays_out_of_the_card():
    cfg = Config.preset("mini").override(dataset_name=f"https://user:{TOKEN}@huggingface.co/datasets/x")
    about = dict(name=f"owner/{TOKEN}", revision="1", tokenizer="2")
    assert TOKEN not in model_card(dict(config=cfg.__dict__, backbones=dict(encoder=about, decoder=about)), {})


def test_a_damaged_book_is_begun_anew(tmp_path, draw, attacks):
    from importlib.metadata import version
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.parquet").write_bytes(b"rows")
    (tmp_path / "outside.parquet").write_bytes(b"rows")
    import hashlib
    part = dict(file="a.parquet", rows=4, sha256=hashlib.sha256(b"rows").hexdigest(), state=dict(at=1))
    good = dict(parts=[part], complete=False, datasets=version("datasets"))
    book = tmp_path / "kept" / "book.json"
    tries = [*VALUES, *(restructured(good, draw) for _ in range(300)), dict(good, parts=[dict(part, file="../outside.parquet")]),
             dict(good, parts=[dict(part, file=str(tmp_path / "outside.parquet"))])]
    for tree in tries:
        book.write_text(json.dumps(tree))
        found = read_book(tmp_path / "kept")
        assert all("/" not in p["file"] for p in found["parts"])
        assert isinstance(found["complete"], bool) and isinstance(found["datasets"], str)
    attacks(len(tries))
