"""A stale cache is refused: the fingerprint covers encoder and revision, tokenizer, lengths, pooling, quantiser, stored fields and the input rows.

Attack: each of these is changed, one at a time, and the old cache is opened by its folder; and the manifest itself is changed and sealed again.
"""
from types import SimpleNamespace

import pytest
from test_cache import rows

from latent_summ.encode.cache import Cache
from latent_summ.encode.cache_writer import CacheWriter
from latent_summ.config import Config
from latent_summ.encode.embed import cache_fingerprint, cache_folder
from latent_summ.runtime import CacheError

ALSO = ["test_cache.py::test_other_settings_make_a_new_cache_and_name_what_differs", "test_cache.py::test_without_preprocessing_caches_are_opened_or_it_is_said_what_to_do"]
ENCODER = dict(name="mini", revision="1", tokenizer="2")
REPORT = dict(kept=20, identity="abc")


def fingerprint(report=REPORT, encoder=ENCODER, decoder="3", eos=1, **changes):
    return cache_fingerprint(Config.preset("mini").override(**changes), SimpleNamespace(identity=encoder), SimpleNamespace(identity=dict(tokenizer=decoder), eos_id=eos), report)


CHANGES = {"encoder": dict(encoder=ENCODER | dict(name="other")), "revision": dict(encoder=ENCODER | dict(revision="9")), "head": dict(encoder=ENCODER | dict(head="9")),
           "tokenizer": dict(encoder=ENCODER | dict(tokenizer="9")),
           "decoder's tokenizer": dict(decoder="9"), "end token": dict(eos=9), "max_seq_len": dict(max_seq_len=100), "max_target_len": dict(max_target_len=9),
           "pooling": dict(encoder_pooling="mean"), "latents": dict(latent_seq_len=4), "quantiser": dict(cache_store_embeddings_int8=False), "text": dict(cache_store_text=True),
           "ids": dict(cache_store_input_ids=True), "mask": dict(cache_store_input_ids=True, cache_store_attention_mask=True),
           "targets": dict(cache_store_target_ids=False, cache_store_target_attention_mask=False), "target mask": dict(cache_store_target_attention_mask=False),
           "format": dict(preprocess_format="arrow"), "number of rows": dict(report=REPORT | dict(kept=21)), "rows": dict(report=REPORT | dict(identity="abd"))}


@pytest.mark.parametrize("what", CHANGES)
def test_everything_it_depends_on(what, tmp_path):
    mine, other, cfg = fingerprint(), fingerprint(**CHANGES[what]), Config.preset("mini")
    with CacheWriter(tmp_path, mine) as w:
        w.add(rows())
        w.finish()
    assert len(Cache.open(tmp_path, fingerprint())) == 20
    with pytest.raises(CacheError, match="was made for other settings: "): Cache.open(tmp_path, other)
    assert cache_folder(cfg, "messenger", "train", mine) != cache_folder(cfg, "messenger", "train", other)
