"""Training's own pass through the frozen decoder: what the model computes, in any family it knows; the decoder that was given stays as it was."""
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latent_summ import runtime
from latent_summ.config import Config
from latent_summ.encode import trunk as trunks
from latent_summ.encode.backbones import Decoder, load_decoder
from latent_summ.encode.trunk import Trunk, agrees, can_merge, with_trunk
from latent_summ.model.decode import generate
from latent_summ.model.head import prefix_loss
from latent_summ.model.model import LatentSummarizer, LowRank, adopt_decoder

CPU = torch.device("cpu")
MINI = Config.preset("mini").override(use_bf16=True)
SMALL = dict(vocab_size=300, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, head_dim=8,
             max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2)
WINDOW = dict(sliding_window=4)
FAMILIES = dict(llama=SMALL, qwen2=SMALL | dict(use_sliding_window=True, max_window_layers=1) | WINDOW, qwen3=SMALL, gemma3_text=SMALL | WINDOW)


def bf16_machine(): return mock.patch.object(runtime, "has_bf16", return_value=True)


def built(family:str, config:dict):
    "A tiny decoder with weights at random, norms and biases too."
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**config)).eval().requires_grad_(False)
    for p in model.parameters():
        if p.ndim == 1: p.normal_(std=0.2)
    return model


@pytest.fixture(scope="module")
def decoder(): return load_decoder(MINI, CPU)


def one_pass(decoder, cast:bool=False, seed:int=1) -> tuple: # (loss, gradient of the prefix)
    g = torch.Generator().manual_seed(seed)
    prefix = (torch.randn(3, 50, decoder.hidden_size, generator=g) * decoder.embedding_rms).requires_grad_()
    labels = torch.randint(5, 900, (3, 9), generator=g)
    labels[1, 5:] = -100
    with torch.autocast("cpu", torch.bfloat16, enabled=cast): total, tokens = prefix_loss(decoder, prefix, labels)
    (total / tokens).backward()
    return (total / tokens).item(), prefix.grad.flatten()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_its_own_states_and_gradients(family):
    model = built(family, FAMILIES[family])
    assert can_merge(model) and agrees(model)
    x = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(0))  # three times as long as the window
    def both(run):
        inputs = x.clone().requires_grad_()
        states = run(inputs)
        states.square().sum().backward()
        return states.detach(), inputs.grad
    for ours, theirs in zip(both(Trunk(model, torch.float32)), both(lambda e: model.base_model(inputs_embeds=e, use_cache=False).last_hidden_state)):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [dict(mlp_bias=True), dict(attention_bias=True), dict(hidden_act="relu")])
def test_a_layer_with_something_of_its_own_is_left_alone(change): assert not can_merge(built("llama", SMALL | change))


def test_a_corrected_layer_is_left_alone():
    model = built("llama", SMALL)
    LowRank(model.base_model.layers[0].self_attn.q_proj, 2)
    assert not can_merge(model)


def test_other_families_keep_their_forward_and_it_is_said(capsys):
    config = dict(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    other = Decoder(built("gpt2", config), None)
    runtime._said.clear()
    with bf16_machine(): assert with_trunk(MINI, other, CPU) is other and not capsys.readouterr().err
    assert with_trunk(MINI.override(use_torch_compile=True), other, CPU) is other
    assert "GPT2LMHeadModel runs as transformers has it" in capsys.readouterr().err


def test_bf16_gradients_are_nearer_to_fp32_than_those_of_autocast(decoder):
    with bf16_machine(): ours = with_trunk(MINI, decoder, CPU)
    near, cast = [], []
    for seed in range(8):
        loss, slope = one_pass(decoder, seed=seed)
        for found, run in ((near, ours), (cast, decoder)):
            other_loss, other_slope = one_pass(run, cast=True, seed=seed)
            found.append((abs(other_loss - loss) / loss, F.cosine_similarity(other_slope, slope, dim=0).item()))
    assert max(error for error, _ in near) < 2e-3 and min(cosine for _, cosine in near) > 0.999
    assert all(ours > theirs for (_, ours), (_, theirs) in zip(near, cast))


def test_only_training_has_one_and_the_given_decoder_stays(decoder):
    with bf16_machine():
        ours = with_trunk(MINI, decoder, CPU)
        for off in (dict(use_bf16=False), dict(shard_decoder=True)): assert with_trunk(MINI.override(**off), decoder, CPU) is decoder
    assert decoder.trunk is None and ours.trunk is not None
    assert ours.model is decoder.model and ours.identity == decoder.identity
    assert {p.dtype for p in decoder.model.parameters()} == {torch.float32}
    prefix = torch.randn(2, 50, decoder.hidden_size, generator=torch.Generator().manual_seed(0)) * decoder.embedding_rms
    cfg = MINI.override(do_sample=False, max_generation_length=8)
    assert generate(ours, prefix, cfg) == generate(decoder, prefix, cfg)


def test_looking_first_does_not_spoil_learning(decoder):
    ours = replace(decoder, trunk=Trunk(decoder.model, torch.float32))
    with torch.inference_mode(): prefix_loss(ours, torch.zeros(3, 50, decoder.hidden_size), torch.full((3, 9), 7))
    loss, slope = one_pass(ours)  # as many positions: the masks that the look has left
    right_loss, right_slope = one_pass(decoder)
    assert abs(loss - right_loss) < 1e-4 and torch.allclose(slope, right_slope, atol=1e-5)


def test_lengths_share_masks_and_few_are_kept(decoder):
    ours = Trunk(decoder.model, torch.float32)
    with mock.patch.object(trunks, "_KEPT", 2):
        for n in (3, 4, 3, 5, 6): ours(torch.zeros(1, n, decoder.hidden_size))
    assert list(ours.constants) == [5, 6]


def test_recomputed_layers_give_the_same(decoder):
    runs = [one_pass(replace(decoder, trunk=Trunk(decoder.model, torch.float32, recompute=on))) for on in (False, True)]
    assert runs[0][0] == runs[1][0] and torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("error", [RuntimeError("No working C++ compiler"), OSError("no space")])
def test_without_a_compiler_the_layers_run_as_they_are(decoder, error, capsys):
    runtime._said.clear()
    with mock.patch("torch.compile", side_effect=error): ours = Trunk(decoder.model, torch.float32, compiled=True)
    said = capsys.readouterr().err
    assert "run uncompiled" in said and str(error) in said and len(said.splitlines()) == 1
    assert one_pass(replace(decoder, trunk=ours))[0] == one_pass(replace(decoder, trunk=Trunk(decoder.model, torch.float32)))[0]


def test_one_compiled_layer_serves_all_layers_and_lengths(decoder):
    from torch._dynamo.testing import CompileCounterWithBackend
    counter, real = CompileCounterWithBackend("aot_eager"), torch.compile
    with mock.patch("torch.compile", lambda f: real(f, backend=counter)): ours = Trunk(decoder.model, torch.float32, compiled=True)
    plain = Trunk(decoder.model, torch.float32)
    for rows, positions in ((2, 7), (3, 12), (5, 30)):
        x = torch.randn(rows, positions, decoder.hidden_size, requires_grad=True)
        assert torch.allclose(ours(x), plain(x), atol=1e-4)
    assert counter.frame_count <= 2  # one without and one with a mask for the input's gradient


def test_corrections_of_all_layers_share_a_compiled_layer():
    "As --preset laptop trains them: the compiled layer gives the same gradients as the plain one."
    from torch._dynamo.testing import CompileCounterWithBackend
    counter, real = CompileCounterWithBackend("aot_eager"), torch.compile
    own = load_decoder(MINI, CPU)
    lows = list(adopt_decoder(LatentSummarizer(MINI), own.model, 3, "all").decoder_lora)
    for low in lows: torch.nn.init.normal_(low.up.weight, std=0.1)
    with mock.patch("torch.compile", lambda f: real(f, backend=counter)): ours = Trunk(own.model, torch.float32, compiled=True, corrections=lows)
    plain = Trunk(own.model, torch.float32, corrections=lows)
    numbers = [p for low in lows for p in low.parameters()]
    for rows, positions in ((2, 7), (3, 12), (5, 30)):
        x = torch.randn(rows, positions, own.hidden_size, requires_grad=True)
        slopes = [torch.autograd.grad(trunk(x).square().mean(), numbers) for trunk in (ours, plain)]
        assert all(torch.allclose(a, b, atol=1e-5) and b.any() for a, b in zip(*slopes))
    assert counter.frame_count <= 2


def kept_bytes(decoder) -> int:
    "Bytes that a pass keeps for the way back, weights aside."
    weights = [*decoder.model.parameters(), *(t for w in (decoder.trunk.weights if decoder.trunk else ()) for t in w if torch.is_tensor(t))]
    known, kept, alive = {t.untyped_storage().data_ptr() for t in weights}, {}, []
    def keep(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        alive.append(t)  # or another tensor could take its place
        return t
    x = torch.randn(4, 60, decoder.hidden_size, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16): decoder.read(x)
    return sum(n for place, n in kept.items() if place not in known)


def test_it_keeps_less_for_the_way_back_than_autocast(decoder):
    assert kept_bytes(replace(decoder, trunk=Trunk(decoder.model, torch.bfloat16))) < kept_bytes(decoder)


@pytest.mark.parametrize("which", ["attention", "all"])
def test_a_correction_learns_through_the_trunk(decoder, which):
    "What the model computes with its own LoRA, and the same gradients; another hook keeps the model's forward."
    own = load_decoder(MINI, CPU)
    model = adopt_decoder(LatentSummarizer(MINI), own.model, 3, which)
    lows = list(model.decoder_lora)
    assert len(lows) == dict(attention=2, all=7)[which] * own.model.config.num_hidden_layers
    torch.manual_seed(0)
    for low in lows: torch.nn.init.normal_(low.up.weight, std=0.1)
    with bf16_machine():
        ours = with_trunk(MINI, own, CPU, lows)
        assert ours.trunk is not None and with_trunk(MINI, own, CPU).trunk is None
    passes = []
    for run in (own, replace(own, trunk=Trunk(own.model, torch.float32, corrections=lows))):
        loss, slope = one_pass(run)
        passes.append((loss, slope, [p.grad.clone() for p in model.decoder_lora.parameters()]))
        model.zero_grad()
    (loss, slope, gradients), (our_loss, our_slope, our_gradients) = passes
    assert abs(our_loss - loss) < 1e-4 and torch.allclose(our_slope, slope, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4) and a.any() for a, b in zip(our_gradients, gradients))
    assert abs(loss - one_pass(decoder)[0]) > 1e-3
