"""How fast the full-size encoder runs on a GPU on real length mixes, by the way it attends, and what share of the card's matrix rate that is.

    python benchmarks/attention.py --device cuda     to benchmarks/results/attention-cuda.json
    python benchmarks/attention.py --toy             the same code on a CPU with a tiny encoder; nothing is written

A ModernBERT-base with random weights in bf16; texts as long as arXiv abstracts and SAMSum dialogues (from the folder in LATENT_SUMM_DATA, four characters
a token; without it, the chats of the built-in corpus), in batches of similar length with the same number of tokens.

- sdpa: padded batches through torch's own attention, as `latent_summ cache` runs them
- compiled: the same with `torch.compile`
- flash: the same with flash-attn, where it is installed
- varlen: no padding at all; `torch.nn.attention.varlen` for attention, one long row for everything else (on a CPU a loop over the texts stands in)

Counted are the multiplications of linear layers and of attention for real tokens only.
"""
import json
import lzma
import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _common import modernbert, options, parse, peak_gb, run_parts, spread, turns
from transformers import AttentionInterface
from transformers.utils import is_flash_attn_2_available

from latent_summ.config import Config
from latent_summ.encode.embedder import token_batches


def lengths(n:int) -> tuple: # (where from, tokens of each text)
    folder, g = os.environ.get("LATENT_SUMM_DATA"), np.random.default_rng(0)
    if not folder:
        from latent_summ.data.sources import load_pairs
        texts, source = [r["dialogue"] for r in load_pairs(Config.preset("mini").override(messenger_rows=2000))], "built-in messenger corpus"
    else:
        def read(name, key): return [t for line in lzma.open(Path(folder) / name, "rt", encoding="utf-8") if (t := json.loads(line)[key])]
        texts, source = read("arxiv.jsonl.xz", "abstract")[:5000] + read("samsum.train.jsonl.xz", "dialogue")[:5000], "arXiv abstracts and SAMSum dialogues"
    return source, np.minimum([len(t) // 4 + 2 for t in g.choice(texts, n)], 512)


def encoder_flops(model, tokens) -> float:
    "Multiplications and additions of the linear layers and of attention, for real tokens only."
    linear, c = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)), model.config
    attended = sum(np.minimum(tokens, 2 * c.sliding_window + 1) if kind == "sliding_attention" else tokens for kind in c.layer_types)
    return float(2 * linear * tokens.sum() + 4 * c.hidden_size * (tokens * attended).sum())


def varlen(module, query, key, value, attention_mask, scaling, sliding_window=None, cu_seqlens=None, longest=0, **_):
    "Attention of texts end to end in one row: (1, heads, tokens, head size) in, (1, tokens, heads, head size) out."
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value)) # (tokens, heads, head size)
    reach = -1 if sliding_window is None else sliding_window - 1
    if q.is_cuda:
        from torch.nn.attention.varlen import varlen_attn
        return varlen_attn(q.contiguous(), k.contiguous(), v.contiguous(), cu_seqlens, cu_seqlens, longest, longest, scale=scaling, window_size=(reach, reach))[None], None
    out = torch.empty_like(q)
    for a, b in zip(cu_seqlens.tolist(), cu_seqlens[1:].tolist()):
        at = torch.arange(b - a)
        mask = None if reach < 0 else (at[:, None] - at).abs() <= reach
        one = [x[a:b].transpose(0, 1)[None] for x in (q, k, v)]
        out[a:b] = F.scaled_dot_product_attention(*one, attn_mask=mask, scale=scaling)[0].transpose(0, 1)
    return out[None], None


AttentionInterface.register("varlen", varlen)


@torch.inference_mode()
def padded(model, batches:list) -> torch.Tensor: # (texts, hidden): means
    out = []
    for ids in batches:
        rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
        states = model(input_ids=rows, attention_mask=mask).last_hidden_state.float()
        out.append((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    return torch.cat(out)


@torch.inference_mode()
def packed(model, batches:list) -> torch.Tensor:
    out = []
    for ids in batches:
        n = torch.tensor([len(i) for i in ids], device=ids[0].device)
        cu = F.pad(n.cumsum(0), (1, 0)).int()
        positions = torch.cat([torch.arange(len(i), device=i.device) for i in ids])[None]
        none = {"full_attention": None, "sliding_attention": None}
        states = model(input_ids=torch.cat(ids)[None], position_ids=positions, attention_mask=none, cu_seqlens=cu, longest=int(n.max())).last_hidden_state[0].float()
        out.append(torch.segment_reduce(states, "mean", lengths=n.long()))
    return torch.cat(out)


def bench_encoder(opts) -> dict:
    cuda, n = opts.device == "cuda", 24 if opts.toy else 4096
    source, tokens = lengths(n)
    dtype = torch.bfloat16 if cuda else torch.float32
    def load(attention): return modernbert(opts.toy, attention).to(opts.device, dtype)
    ids = [torch.randint(5, 3000, (int(t),), device=opts.device) for t in tokens]
    batches = [[ids[i] for i in rows] for rows in token_batches(tokens, 1024, opts.tokens)]
    sdpa = load("sdpa")
    ways = dict(sdpa=partial(padded, sdpa, batches), varlen=partial(packed, load("varlen"), batches))
    if cuda: ways["compiled"] = partial(padded, torch.compile(load("sdpa"), dynamic=True), batches)
    if cuda and is_flash_attn_2_available(): ways["flash"] = partial(padded, load("flash_attention_2"), batches)
    runs = turns(ways, opts.repeats or 5)
    flops, peak = encoder_flops(sdpa, tokens), opts.limits["matmul_bf16_gflops" if cuda else "matmul_fp32_gflops"] * 1e9
    seconds = {k: [t[0] for t in v] for k, v in runs.items()}
    fastest = min(seconds, key=lambda k: np.median(seconds[k]))
    cosine = {k: round(float(F.cosine_similarity(v[-1][2], runs["sdpa"][-1][2]).min()), 5) for k, v in runs.items()}
    share = {k: spread([flops / t / peak for t in v]) for k, v in seconds.items()}
    return dict(texts=source, rows=n, tokens_per_row=spread(tokens), batch_tokens=opts.tokens, dtype=str(dtype)[6:], flash_attn=is_flash_attn_2_available(), fastest=fastest,
                tokens_per_s={k: spread([tokens.sum() / t for t in v]) for k, v in seconds.items()}, share_by_way=share,
                share_of_bf16_matmul=share[fastest], min_cosine_to_sdpa=cosine, peak_gb=round(peak_gb(opts.device), 2))


PARTS = dict(encoder=bench_encoder)


def main():
    p = options(__doc__, PARTS)
    p.add_argument("--tokens", type=int, default=16384, help="tokens in a batch")
    p.add_argument("--repeats", type=int, help="rounds (default: 5)")
    opts = parse(p)
    if opts.device == "cpu" and not opts.toy: print("attention.py compares kernels of a GPU (--device cuda); --toy tries it on a CPU. Nothing was measured.")
    else: run_parts(__file__, opts, PARTS)


if __name__ == "__main__": main()
