"""A training step through the frozen decoder: layers as training runs them, beside transformers' forward under autocast (as before).

    python benchmarks/trunk.py                              to benchmarks/results/trunk.json: weights at random, of the shapes of two decoders
    python benchmarks/trunk.py --weights a/folder           one decoder with its own weights; the results file keeps the folder's last name only

Forward and backward to the prefix, of 16 rows of 50 prefix positions and 32 label tokens, from embeddings to the loss. Ways: `autocast` (0.1.0: fp32 weights,
cast at every step), `trunk` (weights merged, in bf16), `compiled` (the same with use_torch_compile). In turns, in seconds of processor time: other processes
of a shared machine lengthen these far less than those of the clock.

- smollm2, gemma: as above; corrected: SmolLM2 with a correction of rank 8 (LoRA) of queries and values that learns, 8 rows of 256 prefix positions

- step: seconds of each way, how many times as fast as autocast (round by round), and the share of the machine's bf16 rate (in processor time too) that the
  products alone make
- accuracy: loss and gradient of the prefix beside fp32, on 4 of the rows
"""
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from _common import GEMMA, MINI, TOY, options, parse, ratio, run_parts, spread, timed, turns

from latent_summ.config import Config
from latent_summ.encode.backbones import Decoder, load_decoder
from latent_summ.encode.trunk import Trunk
from latent_summ.model.head import prefix_loss
from latent_summ.model.model import LowRank, corrected_layers

SMOLLM2 = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
               tie_word_embeddings=True)


def random_decoder(name:str, toy:bool) -> Decoder:
    "A decoder of a published shape with random weights."
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(**(TOY if toy else GEMMA)) if name == "gemma" else transformers.LlamaConfig(**SMOLLM2 | dict(num_hidden_layers=2 if toy else 30))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval().requires_grad_(False)
    return Decoder(model, transformers.AutoTokenizer.from_pretrained(MINI / "decoder"))


def decoder_flops(decoder, positions:int, targets:int) -> float:
    "Forward, and backward to the inputs alone: twice the products of the layers and of the output layer; attention left out."
    layers = sum(p.numel() for p in decoder.model.base_model.layers.parameters())
    return 4.0 * (layers * positions + decoder.model.get_output_embeddings().weight.numel() * targets)


def rows_of(decoder, rows:int, positions:int, tokens:int) -> tuple: # prefix (rows, positions, hidden), labels (rows, tokens)
    g = torch.Generator().manual_seed(0)
    prefix = torch.randn(rows, positions, decoder.hidden_size, generator=g) * decoder.embedding_rms
    return prefix, torch.randint(20, 3000, (rows, tokens), generator=g)


def one_pass(decoder, prefix, labels, cast:bool=True) -> tuple: # (loss, gradient of the prefix)
    prefix = prefix.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=cast): total, tokens = prefix_loss(decoder, prefix, labels)
    (total / tokens).backward()
    return (total / tokens).item(), prefix.grad


def product_rate() -> float: # GFLOP/s, in processor time
    "Of a large product in bf16: the limit that the same clock gives on a machine that others use too."
    x, w = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    return 2 * 2048**3 / min(timed(lambda: F.linear(x, w))[1] for _ in range(9)) / 1e9


def corrections_of(decoder, rank:int) -> torch.nn.ModuleList:
    "A correction of queries and values, hooked onto the decoder; none for rank 0."
    return torch.nn.ModuleList(LowRank(m, rank) for m in corrected_layers(decoder.model, "attention") if rank)


def bench(opts, name:str, rank:int=0, rows:int=None, positions:int=50) -> dict:
    rows = rows or opts.rows
    if opts.weights:
        cfg = Config(gpt2_model=str(opts.weights), gpt2_hidden_dim=opts.width, attn_implementation="sdpa")
        decoder = load_decoder(cfg, torch.device("cpu"))
    else: decoder = random_decoder(name, opts.toy)
    lows = corrections_of(decoder, rank)
    trunks = {way: Trunk(decoder.model, torch.bfloat16, way == "compiled", corrections=lows) for way in ("trunk", "compiled")}
    ways = dict(autocast=decoder) | {k: replace(decoder, trunk=t) for k, t in trunks.items()}
    prefix, labels = rows_of(decoder, rows, positions, 32)
    runs = turns({k: (lambda d=d: one_pass(d, prefix, labels)) for k, d in ways.items()}, opts.repeats)
    flops, rate = decoder_flops(decoder, rows * (positions + 1 + 32), labels.numel()), product_rate()
    loss, slope = one_pass(decoder, prefix[:4], labels[:4], cast=False)
    accuracy = {}
    for way, d in ways.items():
        other, other_slope = one_pass(d, prefix[:4], labels[:4])
        accuracy[way] = dict(loss_off=abs(other - loss) / loss, gradient_cosine=F.cosine_similarity(slope.flatten(), other_slope.flatten(), dim=0).item())
    return dict(weights=opts.weights.name if opts.weights else "random", rows=rows, positions=positions, rank=rank, bf16_gflops_of_processor_time=round(rate, 1),
                cpu_seconds={k: spread([t[1] for t in v]) for k, v in runs.items()},
                times_autocast={k: ratio(runs["autocast"], v, clock=1) for k, v in runs.items() if k != "autocast"},
                share_of_bf16_matmul={k: spread([flops / t[1] / rate / 1e9 for t in v]) for k, v in runs.items()}, accuracy=accuracy)


PARTS = dict(smollm2=lambda opts: bench(opts, "smollm2"), gemma=lambda opts: bench(opts, "gemma"),
             corrected=lambda opts: bench(opts, "smollm2", rank=8, rows=8, positions=256))


def main():
    p = options(__doc__, PARTS)
    p.add_argument("--weights", type=Path, help="folder of a decoder: its own weights, in place of random ones")
    p.add_argument("--width", type=int, default=640, help="of that decoder")
    p.add_argument("--rows", type=int, default=16)
    p.add_argument("--repeats", type=int, default=3)
    opts = parse(p)
    if opts.weights: opts.words = opts.words.replace(str(opts.weights), opts.weights.name) # no folder of this machine in the figures
    run_parts(__file__, opts, PARTS)


if __name__ == "__main__": main()
