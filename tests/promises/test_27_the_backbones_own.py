"""Loss and text equal the backbone's own (head bias, scale, softcap, generation settings), or the backbone is refused at loading.

Attack: (elsewhere) tiny models of eighteen families against their own logits, loss and gradient, 1, 15, 16 and 20 rows at once, folders that bring
generation settings of every kind, models that look ahead or cannot read embeddings. Here: heads with any bias, scale and cap, in chunks of any size,
against torch's own.
"""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latent_summ.model import head
from latent_summ.model.head import head_divergence, head_loss

ALSO = [f"test_families.py::{n}" for n in ("test_a_decoder_trains", "test_a_decoder_writes", "test_what_a_greedy_decoder_writes_is_its_own",
                                           "test_a_decoder_that_will_not_do_is_refused", "test_an_output_layer_nobody_expects_is_refused")]


def model_with(bias:bool, scale:float, divided:bool, cap):
    "Something with an output layer and a config."
    config = SimpleNamespace(final_logit_softcapping=cap, **({"logits_scaling": 1 / scale} if divided else {"logit_scale": scale}))
    config.get_text_config = lambda decoder: config
    layer = nn.Linear(16, 50, bias=bias).requires_grad_(False)
    def logits(hidden):
        raw = layer(hidden) * scale
        return cap * torch.tanh(raw / cap) if cap else raw
    return SimpleNamespace(config=config, get_output_embeddings=lambda: layer), logits


@pytest.mark.parametrize("chunk", [1, 3, 11, 1000])
def test_any_head_in_chunks_of_any_size(chunk, draw, attacks, monkeypatch):
    torch.manual_seed(draw.randrange(2**31))
    monkeypatch.setattr(head, "_CHUNK_NUMBERS", chunk * 50)
    cases = [(bias, scale, divided, cap) for bias in (False, True) for scale in (1.0, 0.0625, 4.0) for divided in (False, True) for cap in (None, 2.0, 30.0)]
    for case in cases:
        model, logits = model_with(*case)
        hidden, teacher = torch.randn(11, 16, requires_grad=True), torch.randn(11, 16)
        labels, importance = torch.randint(50, (11,)), torch.rand(11)
        plain = (F.cross_entropy(logits(hidden), labels, reduction="none") * importance).sum()
        apart = F.kl_div(logits(hidden).log_softmax(-1), logits(teacher).log_softmax(-1), log_target=True, reduction="sum")
        for mine, own in ((head_loss(model, hidden, labels, importance), plain), (head_divergence(model, hidden, teacher), apart)):
            torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(*(torch.autograd.grad(3 * x, hidden)[0] for x in (mine, own)), rtol=1e-4, atol=1e-4)
    attacks(len(cases))
