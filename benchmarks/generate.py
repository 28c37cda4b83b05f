"""How fast summaries are written, beside transformers' own `generate` on the same prefix, and beside a loop without a cache.

    python benchmarks/generate.py                      everything, to benchmarks/results/generate.json (about ten minutes on one core)
    python benchmarks/generate.py --batches 4          one batch size; the others are kept in the file

A decoder of Gemma-3-270m's shape (262,144 words) with random weights: its speed is that of the real one. Every way starts from the same latents or
the same prefix and writes 48 tokens, greedily; nothing stops earlier, as the end token is out of reach.

- ours: `Summarizer.decode(latents)`: stop check, adapter, prompt, `generate`, detokenise, progress
- direct: `model.generate(inputs_embeds=...)` with the prompt ready, and nothing else: the library as it is
- autocast: ours with fp32 weights under bf16 autocast, as it would be without bringing the weights into bf16 first (batch 4)
- layer: what ours does besides that, as a share of the time inside `generate`, both from one and the same call, in CPU time
- no cache: every token runs the whole sequence again and takes the logits of all positions (batch 4, fp32). Its steps 1, 24 and 48 are timed;
  their cost grows linearly, so the mean of the three stands for all 48.

Ours and direct take turns, so that both see the same neighbours on a shared machine; quoted is the median of the pairs' ratios, by the clock and in CPU
time.
"""
import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from latent_summ.backbones import MINI, Decoder, load_encoder
from latent_summ.config import Config
from latent_summ.decode import prompt_embeds
from latent_summ.inference import Summarizer, _settle
from latent_summ.model import LatentSummarizer
from latent_summ.runtime import write_json

HERE, TOKENS = Path(__file__).parent, 48
DTYPES = dict(bf16=torch.bfloat16, fp32=torch.float32)


def spread(values) -> dict:
    v = np.asarray(values, float)
    return dict(median=round(float(np.median(v)), 4), min=round(float(v.min()), 4), max=round(float(v.max()), 4), n=len(v))


def machine() -> dict:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else ""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    return dict(cpu=cpu, cores=os.cpu_count(), threads=torch.get_num_threads(), python=platform.python_version(), torch=torch.__version__,
                transformers=transformers.__version__, commit=commit, date=time.strftime("%Y-%m-%d"))


def gemma() -> Decoder:
    """A decoder of Gemma-3-270m's shape with random weights; the end token is one that is never the most likely."""
    shape = dict(vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1, head_dim=256, sliding_window=512)
    torch.manual_seed(0)
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**shape, attn_implementation="sdpa")).eval().requires_grad_(False)
    return Decoder(model, transformers.AutoTokenizer.from_pretrained(MINI / "decoder"))


def summarizer(dtype:str) -> Summarizer:
    """The reference's sizes around the random decoder, as `from_pretrained` would leave them. (The encoder is not used here.)"""
    cfg, decoder = Config(device="cpu", use_bf16=dtype == "bf16", do_sample=False, max_generation_length=TOKENS, batch_size=32), gemma()
    model, encoder = LatentSummarizer(cfg, decoder.embedding_rms), load_encoder(Config.preset("mini"))
    _settle(cfg, decoder, torch.device("cpu"))
    assert decoder.model.dtype is DTYPES[dtype], f"this CPU computes in {decoder.model.dtype}"
    return Summarizer(cfg, model, encoder, decoder)


def timed(f) -> tuple: # seconds by the clock, seconds of CPU
    wall, cpu = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter() - wall, time.process_time() - cpu


def direct(s:Summarizer, prompt:torch.Tensor) -> torch.Tensor: # (batch, tokens)
    with torch.inference_mode(), mock.patch.object(s.decoder.model.get_output_embeddings(), "_forward_pre_hooks", {}):  # as the library has it
        return s.decoder.model.generate(inputs_embeds=prompt, attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long), max_new_tokens=TOKENS, do_sample=False,
                                        pad_token_id=s.decoder.pad_id, eos_token_id=s.decoder.eos_id)


def ours(s:Summarizer, latents:torch.Tensor) -> tuple: # seconds by the clock, of CPU, and of CPU inside the library's `generate`
    library, inside = s.decoder.model.generate, []
    def watched(*a, **kw):
        begun = time.process_time()
        try: return library(*a, **kw)
        finally: inside.append(time.process_time() - begun)
    s.decoder.model.generate = watched
    try: return *timed(lambda: s.decode(latents)), sum(inside)
    finally: del s.decoder.model.generate


def start(s:Summarizer, batch:int) -> tuple: # latents, prompt
    latents = F.normalize(torch.randn(batch, 8, 256, generator=torch.Generator().manual_seed(1)), dim=-1)
    with torch.inference_mode(): return latents, prompt_embeds(s.decoder, s.model.prefix(latents).to(s.decoder.model.dtype))


def bench_batch(s:Summarizer, batch:int, repeats:int) -> dict:
    """Tokens/s of ours and of `generate` called directly, in turns."""
    latents, prompt = start(s, batch)
    assert direct(s, prompt[:1]).shape == (1, TOKENS), "something stopped earlier"  # the warm-up
    mine, bare = [], []
    for n in range(repeats):
        for way in ("ours", "direct") if n % 2 else ("direct", "ours"):
            if way == "ours": mine.append(ours(s, latents))
            else: bare.append(timed(lambda: direct(s, prompt)))
    def rate(runs): return spread([batch * TOKENS / r[0] for r in runs])
    return dict(ours_tokens_per_s=rate(mine), direct_tokens_per_s=rate(bare), ours_over_direct_time=spread([a[0] / b[0] for a, b in zip(mine, bare)]),
                ours_over_direct_cpu=spread([a[1] / b[1] for a, b in zip(mine, bare)]), layer_share=spread([(cpu - inside) / inside for _, cpu, inside in mine]))


def bench_autocast(s:Summarizer, repeats:int, batch:int=4, tokens:int=12) -> dict:
    """Ours in bf16: with bf16 weights, and with fp32 weights under autocast, in turns; fewer tokens, as it takes so long."""
    (latents, _), pairs = start(s, batch), []
    for _ in range(repeats):
        weights = timed(lambda: s.decode(latents, max_generation_length=tokens))[0]
        s.decoder.model.float()
        with torch.autocast("cpu", torch.bfloat16): cast = timed(lambda: s.decode(latents, max_generation_length=tokens))[0]
        s.decoder.model.to(torch.bfloat16)
        pairs.append((weights, cast))
    return dict(batch=batch, tokens=tokens, autocast_tokens_per_s=spread([batch * tokens / c for _, c in pairs]), autocast_over_bf16_weights_time=spread([c / w for w, c in pairs]))


def bench_no_cache(s:Summarizer, repeats:int, batch:int=4) -> dict:
    """Ours beside a loop that runs the whole sequence for every token, in turns."""
    latents, prompt = start(s, batch)

    @torch.inference_mode()
    def step(tokens):
        embeds = torch.cat([prompt, prompt[:, :1].expand(-1, tokens, -1)], 1)
        return s.decoder.model(inputs_embeds=embeds, use_cache=False).logits[:, -1].argmax(-1)

    mine, loop = [], []
    for _ in range(repeats):
        mine.append(batch * TOKENS / ours(s, latents)[0])
        loop.append(batch / np.mean([timed(lambda t=t: step(t))[0] for t in (0, 23, 47)]))
    return dict(batch=batch, no_cache_tokens_per_s=spread(loop), ours_tokens_per_s=spread(mine), times_no_cache=spread(np.divide(mine, loop)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batches", type=int, nargs="*", default=[1, 4, 32])
    p.add_argument("--dtypes", nargs="*", default=list(DTYPES), choices=DTYPES)
    p.add_argument("--repeats", type=int, default=3, help="pairs of runs in bf16; one less in fp32, and one less at batch 32")
    p.add_argument("--output", type=Path, default=HERE / "results" / "generate.json")
    opts = p.parse_args()
    out = json.loads(opts.output.read_text()) if opts.output.exists() else {}
    out |= dict(command="python benchmarks/generate.py", machine=machine(), new_tokens=TOKENS, prompt_positions=52)
    def keep(name, value):
        print(name, json.dumps(value), flush=True)
        out[name] = value
        write_json(opts.output, out)
    for dtype in opts.dtypes:
        s = summarizer(dtype)
        for batch in opts.batches: keep(f"{dtype}, batch {batch}", bench_batch(s, batch, max(1, opts.repeats - (dtype == "fp32") - (batch > 4))))
        if dtype == "bf16": keep("bf16 autocast", bench_autocast(s, 2))
        else: keep("no cache, fp32", bench_no_cache(s, 1))
    print(opts.output)


if __name__ == "__main__": main()
