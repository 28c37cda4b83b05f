"""How fast texts become cached embeddings, how small the cache is, and how fast it is read.

    python benchmarks/cache.py                            everything, to benchmarks/results/cache.json (about a quarter of an hour)
    python benchmarks/cache.py --parts storage            one part; the others are kept in the file
    python benchmarks/cache.py --batches 4 --repeats 10   more texts, more rounds

A ModernBERT-base of full size with random weights (its speed is that of the real one) and texts as long as arXiv abstracts and SAMSum dialogues.
These are read from the folder in LATENT_SUMM_DATA (arxiv.jsonl.xz, samsum.train.jsonl.xz); without it, the built-in messenger corpus stands in.
Ours and its peers run in turn within one process, and what they take is processor time, which other work on the machine disturbs least. Quoted is the
median of the rounds' ratios. Needs `pip install 'latent_summ[bench]'` for the peer.
"""
import json
import lzma
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _common import MadeRows, child, modernbert, options, parse, peak_gb, run_parts, spread, timed, turns
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from latent_summ.encode.backbones import Encoder, load_decoder, load_encoder
from latent_summ.encode.cache_writer import CacheWriter
from latent_summ.encode.shards import dequantize_int8, quantize_int8
from latent_summ.config import Config
from latent_summ.encode.embed import build_cache
from latent_summ.encode.embedder import Embedder, embed_texts
from latent_summ.encode.tokens import input_ids
from latent_summ.runtime import autocast_dtype
from latent_summ.data.sources import load_pairs, load_texts

def corpus() -> tuple:
    """(where it is from, abstracts, dialogues)"""
    folder = os.environ.get("LATENT_SUMM_DATA")
    if not folder:
        cfg = Config.preset("mini")
        return "built-in messenger corpus", [r["text"] for r in load_texts(cfg, "messenger-texts")], [r["dialogue"] for r in load_pairs(cfg)]
    read = lambda name, key: [json.loads(line)[key] for line in lzma.open(Path(folder) / name, "rt", encoding="utf-8")]
    dialogues = [d for d in read("samsum.train.jsonl.xz", "dialogue") if d]
    return "arXiv abstracts and SAMSum dialogues", read("arxiv.jsonl.xz", "abstract"), dialogues


def make_tokenizer(texts) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of 16,000 pieces, trained on the spot."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=16000, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", model_max_length=512)


def matmul_peak(dtype) -> float:
    """FLOP per second of processor time, at the best of a few matrix products, those of the encoder among them."""
    best = 0.0
    for m, k, n in ((2048, 768, 2304), (2048, 1152, 768), (4096, 4096, 4096)):
        product = partial(torch.nn.functional.linear, torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype))
        with torch.inference_mode(): best = max([best, *(2 * m * k * n / timed(product)[1] for _ in range(4))])
    return best


def encoder_flops(model, lengths) -> float:
    """Multiplications and additions of the linear layers and of attention, for real tokens only."""
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    c, lengths = model.config, np.asarray(lengths)
    attended = sum(np.minimum(lengths, 2 * c.sliding_window + 1) if kind == "sliding_attention" else lengths for kind in c.layer_types)
    return float(2 * linear * lengths.sum() + 4 * c.hidden_size * (lengths * attended).sum())


def like_a_large_set(texts, lengths, groups=2, size=32) -> list:
    """Some texts whose batches are as those of the whole set when it is sorted by length: runs of `size` neighbours, spread evenly."""
    order = np.argsort(lengths, kind="stable")
    middles = (np.arange(groups) + 0.5) / groups * len(order)
    return [texts[i] for m in middles for i in order[int(m) - size // 2:int(m) + size // 2]]


def padded_fp32(cfg, encoder, texts):
    """What the reference does: every row padded to max_seq_len, fp32, 32 rows at a time."""
    with torch.inference_mode():
        for i in range(0, len(texts), 32):
            x = encoder.tokenizer(texts[i:i + 32], padding="max_length", truncation=True, max_length=cfg.max_seq_len, return_tensors="pt")
            states = encoder.model(input_ids=x["input_ids"], attention_mask=x["attention_mask"]).last_hidden_state
            mask = x["attention_mask"][..., None].float()
            out = (states * mask).sum(1) / mask.sum(1)
    return out


def bench_encode(opts) -> dict:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import __version__ as st_version
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    source, abstracts, dialogues = corpus()
    g = np.random.default_rng(0)
    tokenizer, model = make_tokenizer(abstracts[:2000] + dialogues[:2000]), modernbert(opts.toy)
    cfg, encoder = Config(device="cpu", encoder_pooling="mean"), Encoder(model, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        peer = SentenceTransformer(modules=[Transformer(folder, max_seq_length=cfg.max_seq_len), Pooling(768, "mean")], device="cpu")
    pool = [t[i] for t in (abstracts, dialogues) for i in g.choice(len(t), min(2000, len(t)), replace=False)]
    texts = like_a_large_set(pool, [len(i) for i in input_ids(cfg, encoder, pool)[0]], opts.batches)
    lengths = [len(i) for i in input_ids(cfg, encoder, texts)[0]]
    flops, few, dtype = encoder_flops(model, lengths), texts[::len(texts) // 4][:4], autocast_dtype(cfg, torch.device("cpu"))
    ways = dict(ours=lambda: embed_texts(cfg, encoder, texts), forward=lambda: embed_texts(cfg.override(attn_implementation="eager"), encoder, texts),
                peer=lambda: peer.encode(texts, show_progress_bar=False), few=lambda: embed_texts(cfg, encoder, few), padded=lambda: padded_fp32(cfg, encoder, few),
                peak=lambda: matmul_peak(dtype), peak32=lambda: matmul_peak(torch.float32))
    embed_texts(cfg, encoder, few), peer.encode(few, show_progress_bar=False)
    runs = turns(ways, opts.repeats, warm_up=False)
    seconds = {name: np.array([r[1] for r in runs[name]]) for name in ways}
    peak, peak32 = (np.array([r[2] for r in runs[name]]) for name in ("peak", "peak32"))
    x, y = dequantize_int8(*quantize_int8(runs["ours"][0][2]))[:, 0], runs["peer"][0][2]
    cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    share, peer_share, times = flops / seconds["ours"] / peak, flops / seconds["peer"] / peak32, seconds["peer"] / seconds["ours"]
    return dict(texts=source, rows=len(texts), tokens_per_row=spread(lengths), max_seq_len=cfg.max_seq_len, encoder="ModernBERT-base, random weights",
                dtype=str(dtype)[6:], unit="rows per second of processor time",
                peer=f"sentence-transformers {st_version} encode, fp32, its defaults", ours_rows_per_s=spread(len(texts) / seconds["ours"]),
                ours_tokens_per_s=spread(sum(lengths) / seconds["ours"]), peer_rows_per_s=spread(len(texts) / seconds["peer"]), times_peer=spread(times),
                times_transformers_forward=spread(seconds["forward"] / seconds["ours"]), min_cosine_int8=round(float(cosine.min()), 6),
                matmul_peak_gflops=spread(peak / 1e9), fp32_matmul_peak_gflops=spread(peak32 / 1e9), share_of_matmul_peak=spread(share),
                peer_share_of_fp32_peak=spread(peer_share), times_peer_at_full_peak=spread(times / share),
                padded_rows=len(few), padded_rows_per_s=spread(len(few) / seconds["padded"]), ours_same_rows_per_s=spread(len(few) / seconds["few"]),
                times_padded=spread(seconds["padded"] / seconds["few"]), load_after=round(os.getloadavg()[0], 1))


def bench_profile(opts) -> dict:
    """Where the time of one batch goes: 8 rows of 256 tokens through the full-size encoder, in the precision that embedding takes."""
    from torch.profiler import ProfilerActivity, profile
    tokenizer = make_tokenizer(["no words are needed"])
    embedder, ids = Embedder(Config(device="cpu", encoder_pooling="mean"), Encoder(modernbert(opts.toy), tokenizer)), torch.randint(5, 3000, (8, 256)).tolist()
    embedder(ids)
    with profile(activities=[ProfilerActivity.CPU]) as p: embedder(ids)
    own = {e.key.removeprefix("aten::"): e.self_cpu_time_total for e in p.key_averages()}
    total = sum(own.values())
    return dict(batch=[8, 256], seconds=round(total / 1e6, 3), share={k: round(v / total, 4) for k, v in sorted(own.items(), key=lambda kv: -kv[1]) if v > 0.01 * total})


def stored_rows(n=6000, dim=768) -> list:
    """Rows as a mean-pooled cache of SAMSum has them by default: one vector, about 26 target tokens, their mask."""
    g = np.random.default_rng(0)
    targets = [g.integers(0, 250_000, int(g.integers(8, 45))).tolist() for _ in range(n)]
    return [{"id": str(13_000_000 + i), "embedding": g.standard_normal((1, dim), dtype=np.float32), "target_ids": t, "target_attention_mask": [1] * len(t)}
            for i, t in enumerate(targets)]


def write_json_rows(path, rows) -> list:
    """The same rows as the reference keeps them, eight-bit numbers as JSON arrays; returns where each line starts."""
    offsets, at = [], 0
    with open(path, "wb") as f:
        for r in rows:
            values, scale = quantize_int8(r["embedding"][0])
            offsets.append(at)
            at += f.write(json.dumps(r | {"embedding": values.tolist(), "embedding_scale": float(scale[0])}).encode() + b"\n")
    return offsets


class JsonRows(torch.utils.data.Dataset):
    """The per-row reader that the cache is compared with: one line by its offset, parsed, made into tensors."""
    def __init__(self, path, offsets): self.file, self.offsets = open(path, "rb"), offsets
    def __len__(self): return len(self.offsets)

    def __getitem__(self, i):
        self.file.seek(self.offsets[i])
        row = json.loads(self.file.readline())
        return torch.tensor(row["embedding"], dtype=torch.float32) * row["embedding_scale"], row["target_ids"]


def read_json_per_row(data, order, size=32):
    for i in range(0, len(order), size):
        batch = [data[n] for n in order[i:i + size]]
        out = torch.stack([x for x, _ in batch]), [t for _, t in batch]
    return out


def read_json_per_batch(data, order, size=32):
    """A kinder variant: lines parsed one by one, one array for the batch."""
    for i in range(0, len(order), size):
        batch = []
        for n in order[i:i + size]:
            data.file.seek(data.offsets[n])
            batch.append(json.loads(data.file.readline()))
        out = np.array([r["embedding"] for r in batch], np.float32) * np.array([[r["embedding_scale"]] for r in batch], np.float32), [r["target_ids"] for r in batch]
    return out


def read_batches(cache, order, size=32):
    for i in range(0, len(order), size): batch = cache.take(order[i:i + size], ("embedding", "target_ids"))
    return batch


def read_columns(cache): return cache.embeddings(), cache.targets()


def bench_storage(opts) -> dict:
    rows, g, runs, caches = stored_rows(), np.random.default_rng(1), [], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = JsonRows(folder / "rows.json", write_json_rows(folder / "rows.json", rows))
        for kind in ("jsonl", "arrow"):
            with CacheWriter(folder / kind, {"encoder": "toy"}, format=kind) as w: w.add(rows); caches[kind] = w.finish()
        more = lambda kind: lambda o: read_batches(caches[kind], o, 256)
        size = {"json_arrays": (folder / "rows.json").stat().st_size / len(rows)}
        size |= {k: sum(p.stat().st_size for p in c.folder.iterdir()) / len(rows) for k, c in caches.items()}
        readers = dict(json_per_row=lambda o: read_json_per_row(data, o), json_per_batch=lambda o: read_json_per_batch(data, o),
                       jsonl=lambda o: read_batches(caches["jsonl"], o), arrow=lambda o: read_batches(caches["arrow"], o), jsonl_256=more("jsonl"), arrow_256=more("arrow"),
                       jsonl_columns=lambda _: read_columns(caches["jsonl"]), arrow_columns=lambda _: read_columns(caches["arrow"]))
        for _ in range(2 * opts.repeats + 1):  # the first is a warm-up
            order = g.permutation(len(rows))
            runs.append({k: len(rows) / timed(partial(f, order))[1] for k, f in readers.items()})
    runs = runs[1:]
    share = {k: round(size[k] / size["json_arrays"], 4) for k in caches}
    times = {f"{k}_times_{j}": spread([r[k] / r[j] for r in runs]) for k in (*caches, "jsonl_256", "arrow_256", "arrow_columns") for j in ("json_per_row", "json_per_batch")}
    return dict(rows=len(rows), dim=768, bytes_per_row={k: round(v, 1) for k, v in size.items()}, share_of_json_arrays=share,
                unit="rows per second of processor time, one core, vectors as float32 with target ids; shuffled batches of 32 (or 256), `columns`: everything at once",
                rows_per_s={k: spread([r[k] for r in runs]) for k in readers}, **times)


def embed_short_rows(n):
    """In a process of its own: embed `n` rows, print the peak memory before and after, in MB."""
    peak = lambda: 1000 * peak_gb()
    cfg = Config.preset("mini").override(device="cpu")
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    encoder.model.layers = encoder.model.layers[:1] # one layer: the number of rows matters here, not the encoder
    with tempfile.TemporaryDirectory() as folder:
        cfg = cfg.override(preprocess_cache_dir=folder)
        rows = MadeRows(n, lambda i: f"Row {i} says: see you at {i % 12} o'clock.")
        before, (seconds, _, cache) = peak(), timed(lambda: build_cache(cfg, encoder, decoder, "texts", "short", rows=rows))
        print(json.dumps(dict(rows=len(cache), loaded_mb=round(before), peak_mb=round(peak()), seconds=round(seconds, 1))))


def bench_memory(opts) -> dict:
    runs = [child(__file__, "--short-rows", n) for n in (2_000, 20_000, 200_000)]
    return dict(encoder="mini, its first layer", runs=runs, growth_mb=runs[-1]["peak_mb"] - runs[-2]["peak_mb"])


PARTS = dict(encode=bench_encode, profile=bench_profile, storage=bench_storage, memory=bench_memory)


def main():
    p = options(__doc__, PARTS)
    p.add_argument("--batches", type=int, default=2, help="how many times 32 texts to embed")
    p.add_argument("--repeats", type=int, help="rounds (default: 3, with --full 5)")
    p.add_argument("--short-rows", type=int, help="embed so many and tell the peak memory; `memory` calls this in a process of its own")
    opts = parse(p)
    if opts.short_rows: return embed_short_rows(opts.short_rows)
    opts.repeats = opts.repeats or (5 if opts.full else 3)
    run_parts(__file__, opts, PARTS)


if __name__ == "__main__": main()
