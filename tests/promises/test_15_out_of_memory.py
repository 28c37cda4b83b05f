"""Running out of memory while embedding halves the token budget and continues; the order of rows does not change.

Attack: memory runs out at random batches, and whenever a batch is larger than a limit drawn at random; every text must appear once, in its place. A single
text that does not fit is an error that says so.
"""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latent_summ.config import Config
from latent_summ.encode.embedder import Embedder
from latent_summ.runtime import ModelError

ALSO = ["test_cache.py::test_out_of_memory_halves_the_budget_and_keeps_the_order"]
ERRORS = [torch.OutOfMemoryError("no room"), MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")]


def embedder(short) -> Embedder:
    e = Embedder.__new__(Embedder)  # without an encoder: `batch` stands in for it
    e.cfg, e.encoder, e.device, e.max_tokens = Config(device="cpu", encoder_pooling="mean", max_seq_len=64), SimpleNamespace(hidden_size=2, head=None), torch.device("cpu"), 1024
    def batch(ids):
        short(ids)
        return np.array([[[i[0], len(i)]] for i in ids], np.float32).repeat(1, 1)
    e.batch = batch
    return e


def test_whenever_it_happens(draw, attacks):
    failures = 0
    for _ in range(60):
        ids = [[i] * draw.randrange(1, 40) for i in range(1, draw.randrange(2, 80))]
        limit, share = draw.choice((40, 80, 300, 10**9)), draw.choice((0, 0.1, 0.3))
        def short(batch, limit=limit, share=share):
            nonlocal failures
            if len(batch) > 1 and (len(batch) * max(map(len, batch)) > limit or draw.random() < share): failures += 1; raise draw.choice(ERRORS)
        out = embedder(short)(ids)
        assert out[:, 0, 0].tolist() == [i[0] for i in ids] and out[:, 0, 1].tolist() == [len(i) for i in ids]
    assert failures > 50
    attacks(failures)


def test_a_single_text_that_does_not_fit():
    def short(batch): raise torch.OutOfMemoryError("no room")
    with pytest.raises(ModelError, match="One text of 9 tokens does not fit .* Lower --max-seq-len"): embedder(short)([[1] * 9])


def test_other_errors_are_not_taken_for_it():
    def short(batch): raise RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"): embedder(short)([[1] * 9])
