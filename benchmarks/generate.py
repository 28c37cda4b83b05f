"""How fast summaries are written, beside transformers' own `generate` on the same prefix, and beside a loop without a cache.

    python benchmarks/generate.py                        to benchmarks/results/generate.json: batches of 1 and 4
    python benchmarks/generate.py --full                 batches of 1, 4 and 32, autocast, and the loop without a cache
    python benchmarks/generate.py --device cuda --full   on a GPU, with a compiled static cache as well

A decoder of Gemma-3-270m's shape (262,144 words) with random weights: its speed is that of the real one. Every way starts from the same latents or
the same prefix and writes 48 tokens, greedily; nothing stops earlier, as the end token is out of reach.

- ours: `Summarizer.decode(latents)`: stop check, adapter, prompt, `generate`, detokenise, progress
- direct: `model.generate(inputs_embeds=...)` with the prompt ready, and nothing else: the library as it is
- layer: what ours does besides that, as a share of the time inside `generate`, both from one and the same call, in CPU time
- share of limit: weights that every token has to read, over what the memory can deliver (batch 1 can be no faster than that)
- autocast: ours with fp32 weights under bf16 autocast, as it would be without bringing the weights into bf16 first
- no cache: every token runs the whole sequence again and takes the logits of all positions (batch 4, fp32). Its steps 1, 24 and 48 are timed;
  their cost grows linearly, so the mean of the three stands for all 48.
- static: direct with `cache_implementation="static"`, which transformers compiles on a GPU
- compiled: one summary at a time from a static cache, each step through the compiled decoder

The ways take turns, so that all see the same neighbours on a shared machine; quoted is the median of the pairs' ratios.
"""
import time
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from transformers import StaticCache
from _common import gemma, options, parse, ratio, run_parts, spread, timed, turns

from latent_summ.encode.backbones import load_encoder
from latent_summ.config import Config
from latent_summ.model.decode import prompt_embeds
from latent_summ.use.inference import Summarizer
from latent_summ.use.loading import _settle
from latent_summ.model.model import LatentSummarizer

TOKENS = 48
DTYPES = dict(bf16=torch.bfloat16, fp32=torch.float32)


def summarizer(opts, dtype:str) -> Summarizer:
    """The reference's sizes around the random decoder, as `from_pretrained` would leave them. (The encoder is not used here.)"""
    cfg, decoder = Config(device=opts.device, use_bf16=dtype == "bf16", use_fp16=False, do_sample=False, max_generation_length=TOKENS, batch_size=32), gemma(opts.toy)
    model, encoder = LatentSummarizer(cfg, decoder.embedding_rms), load_encoder(Config.preset("mini").override(device="cpu"))
    decoder.model.to(opts.device)
    _settle(cfg, decoder, torch.device(opts.device))
    assert opts.toy or decoder.model.dtype is DTYPES[dtype], f"this machine computes in {decoder.model.dtype}"
    return Summarizer(cfg, model, encoder, decoder)


def direct(s:Summarizer, prompt:torch.Tensor, **how) -> torch.Tensor: # (batch, tokens)
    head, mask = s.decoder.model.get_output_embeddings(), torch.ones(prompt.shape[:2], dtype=torch.long, device=prompt.device)
    with torch.inference_mode(), mock.patch.object(head, "_forward_pre_hooks", {}):  # as the library has it
        return s.decoder.model.generate(inputs_embeds=prompt, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False,
                                        pad_token_id=s.decoder.pad_id, eos_token_id=s.decoder.eos_id, **how)


def ours(s:Summarizer, latents:torch.Tensor) -> float: # CPU seconds outside the library's `generate`, as a share of those inside
    library, inside = s.decoder.model.generate, []
    def watched(*a, **kw):
        begun = time.process_time()
        try: return library(*a, **kw)
        finally: inside.append(time.process_time() - begun)
    s.decoder.model.generate = watched
    try: cpu = timed(lambda: s.decode(latents))[1]
    finally: del s.decoder.model.generate
    return cpu / sum(inside) - 1


def start(s:Summarizer, batch:int) -> tuple: # latents, prompt
    latents = F.normalize(torch.randn(batch, 8, 256, generator=torch.Generator().manual_seed(1)), dim=-1)
    with torch.inference_mode(): return latents, prompt_embeds(s.decoder, s.model.prefix(latents.to(s.device)).to(s.decoder.model.dtype))


def bench_batch(s:Summarizer, batch:int, repeats:int, memory:float) -> dict:
    """Tokens/s of ours and of `generate` called directly, in turns."""
    latents, prompt = start(s, batch)
    assert direct(s, prompt[:1]).shape == (1, TOKENS), "something stopped earlier"  # the warm-up
    ways = dict(direct=lambda: direct(s, prompt), ours=lambda: ours(s, latents))
    if s.device.type == "cuda": ways["static"] = lambda: direct(s, prompt, cache_implementation="static")
    runs = turns(ways, repeats, warm_up=s.device.type == "cuda")
    rate = {f"{k}_tokens_per_s": spread([batch * TOKENS / t[0] for t in v]) for k, v in runs.items()}
    weights = sum(p.nbytes for p in s.decoder.model.parameters())
    static = dict(times_static=ratio(runs["static"], runs["ours"])) if "static" in runs else {}
    return rate | static | dict(times_direct=ratio(runs["direct"], runs["ours"]), times_direct_cpu=ratio(runs["direct"], runs["ours"], clock=1),
                                layer_share=spread([t[2] for t in runs["ours"]]), share_of_memory_limit=spread([TOKENS * weights / t[0] / memory for t in runs["ours"]]))


def bench_dtype(opts, dtype:str) -> dict:
    s, memory = summarizer(opts, dtype), opts.limits["memory_read_gb_per_s"] * 1e9
    batches, repeats = opts.batches or ([1, 4, 32] if opts.full else [1, 4]), opts.repeats or (3 if opts.full else 2)
    return dict(new_tokens=TOKENS, prompt_positions=52) | {f"batch {b}": bench_batch(s, b, max(1, repeats - (b > 4)), memory) for b in batches}


def bench_autocast(opts, batch:int=4, tokens:int=12) -> dict:
    """Ours in bf16: with bf16 weights, and with fp32 weights under autocast, in turns; fewer tokens, as it takes so long."""
    s = summarizer(opts, "bf16")
    latents, pairs = start(s, batch)[0], []
    for _ in range(opts.repeats or 2):
        weights = timed(lambda: s.decode(latents, max_generation_length=tokens))
        s.decoder.model.float()
        with torch.autocast(opts.device, torch.bfloat16): cast = timed(lambda: s.decode(latents, max_generation_length=tokens))
        s.decoder.model.to(torch.bfloat16)
        pairs.append((cast, weights))
    return dict(batch=batch, new_tokens=tokens, autocast_tokens_per_s=spread([batch * tokens / c[0] for c, _ in pairs]), times_autocast=ratio(*zip(*pairs)))


def bench_no_cache(opts, batch:int=4) -> dict:
    """Ours beside a loop that runs the whole sequence for every token, in turns."""
    s = summarizer(opts, "fp32")
    latents, prompt = start(s, batch)

    @torch.inference_mode()
    def step(tokens):
        embeds = torch.cat([prompt, prompt[:, :1].expand(-1, tokens, -1)], 1)
        return s.decoder.model(inputs_embeds=embeds, use_cache=False).logits[:, -1].argmax(-1)

    mine, loop = [], []
    for _ in range(opts.repeats or 1):
        mine.append(batch * TOKENS / timed(lambda: ours(s, latents))[0])
        loop.append(batch / np.mean([timed(lambda t=t: step(t))[0] for t in (0, 23, 47)]))
    return dict(batch=batch, new_tokens=TOKENS, no_cache_tokens_per_s=spread(loop), ours_tokens_per_s=spread(mine), times_no_cache=spread(np.divide(mine, loop)))


def bench_compiled(opts) -> dict:
    """One summary at a time, in turns: ours, and a loop over a static cache, as it is and compiled. (On a CPU, transformers compiles nothing itself.)"""
    s = summarizer(opts, "bf16")
    model, (latents, prompt) = s.decoder.model, start(s, 1)
    cache, first = StaticCache(config=model.config, max_cache_len=128), prompt.shape[1]

    @torch.inference_mode()
    def loop(step) -> list:
        cache.reset()
        tokens = [model(inputs_embeds=prompt, past_key_values=cache, cache_position=torch.arange(first)).logits[:, -1:].argmax(-1)]
        for at in range(first, first + TOKENS - 1):
            tokens.append(step(input_ids=tokens[-1], past_key_values=cache, cache_position=torch.tensor([at])).logits[:, -1:].argmax(-1))
        return torch.cat(tokens, 1)

    compiled = torch.compile(model.forward, dynamic=False)
    compiling = timed(lambda: loop(compiled))[0]
    runs = turns(dict(ours=lambda: s.decode(latents), static=lambda: loop(model), compiled=lambda: loop(compiled)), opts.repeats or 3)
    same = bool((direct(s, prompt) == runs["compiled"][0][2]).all())
    rate = {f"{k}_tokens_per_s": spread([TOKENS / t[0] for t in v]) for k, v in runs.items()}
    return rate | dict(new_tokens=TOKENS, same_tokens=same, seconds_to_compile=compiling, times_ours=ratio(runs["ours"], runs["compiled"], clock=1),
                       static_times_ours=ratio(runs["ours"], runs["static"], clock=1))


PARTS = dict(compiled=bench_compiled, bf16=lambda opts: bench_dtype(opts, "bf16"), fp32=lambda opts: bench_dtype(opts, "fp32"), autocast=bench_autocast, no_cache=bench_no_cache)


def main():
    p = options(__doc__, PARTS, quick=("bf16", "fp32"))
    p.add_argument("--batches", type=int, nargs="*", help="batch sizes (default: 1 4, with --full 1 4 32)")
    p.add_argument("--repeats", type=int, help="rounds (default: 2, with --full 3; one less above batch 4)")
    run_parts(__file__, parse(p), PARTS)


if __name__ == "__main__": main()
