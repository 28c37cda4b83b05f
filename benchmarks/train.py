"""How fast the stages train, and in how much memory, beside the straightforward way and beside the bare arithmetic.

    python benchmarks/train.py                         everything, to benchmarks/results/train.json (about half an hour)
    python benchmarks/train.py --parts stage1 resume   some parts; the others are kept in the file

Random weights of full size: the middle of the reference, and a decoder of Gemma-3-270m's shape (262,144 words); their speed is that of the real ones.
Targets are as long as SAMSum summaries and arXiv abstracts, counted as one token for four characters; the texts are read from the folder in
LATENT_SUMM_DATA (without it, the built-in messenger corpus stands in). Each way runs in a process of its own, for its peak memory; ours and
the straightforward way take turns. Quoted is the median of the pairs' ratios.
"""
import argparse
import json
import lzma
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from latent_summ.backbones import MINI, Decoder
from latent_summ.config import Config
from latent_summ.decode import pad_labels, prefix_loss, prompt_embeds
from latent_summ.model import LatentSummarizer
from latent_summ.runtime import autocast, autocast_dtype, write_json
from latent_summ.stages import stage_table
from latent_summ.trainer import Job, StageRows, Trainer, Vectors, make_optimizers, set_trainable

HERE, CPU = Path(__file__).parent, torch.device("cpu")


def spread(values) -> dict:
    v = np.asarray(values, float)
    return dict(median=round(float(np.median(v)), 4), min=round(float(v.min()), 4), max=round(float(v.max()), 4), n=len(v))


def machine() -> dict:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else ""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    return dict(cpu=cpu, cores=os.cpu_count(), threads=torch.get_num_threads(), python=platform.python_version(), torch=torch.__version__,
                transformers=transformers.__version__, commit=commit, date=time.strftime("%Y-%m-%d"), dtype=str(autocast_dtype(Config(device="cpu"), CPU))[6:])


def peak_gb() -> float: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- stage 1 ----------------------------------------------------------------------------------------------------------

def bench_stage1(opts) -> dict:
    """The trainer on 30-row batches and accumulation 3, against the same forward, backward and step on batches that are ready."""
    cfg = Config(device="cpu", gradient_accumulation_steps=3, use_stop_latent=False)
    torch.manual_seed(0)
    model = LatentSummarizer(cfg)
    rows = StageRows(Vectors(torch.randint(-127, 128, (opts.rows, 1, 768), dtype=torch.int8), torch.rand(opts.rows, 1, 1) / 40))
    stage = stage_table(cfg)[0]
    def loss(batch, progress): return stage.loss(model, None, cfg, batch, progress)

    def ours():
        trainer = Trainer(Job("pretrain_middle", model, ("middle",), rows, loss, 1, 30), cfg, CPU)
        start = time.perf_counter()
        trainer.run()
        return time.perf_counter() - start, trainer.loading

    def bare(cfg=cfg):
        named = set_trainable(model, ("middle",))
        optimizer, = make_optimizers(named, cfg)
        batches = [dict(inputs=rows.inputs.batch(list(range(i, min(i + 30, len(rows)))))) for i in range(0, len(rows), 30)]
        start = time.perf_counter()
        for i in range(0, len(batches), 3):
            for batch in batches[i:i + 3]:
                with autocast(cfg, CPU): total, _ = loss(batch, 0)
                (total / 3).backward()
            torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return time.perf_counter() - start
    ours(), bare()
    runs = []
    for _ in range(opts.repeats):
        (a, loading), b, c = ours(), bare(), bare(cfg.override(use_bf16=False))
        runs.append(dict(ours=opts.rows / a, bare=opts.rows / b, bare_fp32=opts.rows / c, share=b / a, loading=loading / a, bf16_gain=c / b))
        print({k: round(v, 4) for k, v in runs[-1].items()}, flush=True)
    col = lambda key: spread([r[key] for r in runs])
    per_core = [r["ours"] / torch.get_num_threads() for r in runs]
    return dict(rows=opts.rows, batch_size=30, accumulation=3, ours_rows_per_s=col("ours"), bare_rows_per_s=col("bare"), bare_fp32_rows_per_s=col("bare_fp32"),
                share_of_bare=col("share"), loading_share=col("loading"), bf16_gain=col("bf16_gain"), ours_rows_per_s_per_core=spread(per_core),
                times_reference_226_per_core=spread([x / 226 for x in per_core]))


# --- stages 2 and 4 ---------------------------------------------------------------------------------------------------

def target_lengths(kind:str) -> tuple:
    """(where from, tokens of each target text, end token included): characters / 4."""
    folder = os.environ.get("LATENT_SUMM_DATA")
    if not folder:
        from latent_summ.sources import load_pairs
        return "built-in messenger corpus", [len(r["summary"]) // 4 + 1 for r in load_pairs(Config.preset("mini").override(messenger_rows=2000))]
    name, key = dict(samsum=("samsum.train.jsonl.xz", "summary"), arxiv=("arxiv.jsonl.xz", "abstract"))[kind]
    texts = [json.loads(line)[key] for line in lzma.open(Path(folder) / name, "rt", encoding="utf-8")]
    return name, [len(t) // 4 + 1 for t in texts if t]


def gemma() -> Decoder:
    """A decoder of Gemma-3-270m's shape with random weights."""
    shape = dict(vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1, head_dim=256, sliding_window=512)
    torch.manual_seed(0)
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**shape, attn_implementation="sdpa")).eval().requires_grad_(False)
    return Decoder(model, transformers.AutoTokenizer.from_pretrained(MINI / "decoder"))


def plain_loss(decoder, prefix, labels):
    """The straightforward way: every row padded to 256 tokens, logits for every position, fp32."""
    labels = F.pad(labels, (0, 256 - labels.shape[1]), value=-100)
    prompt = prompt_embeds(decoder, prefix)
    inputs = torch.cat([prompt, decoder.embed(labels.clamp_min(0))], 1)
    mask = torch.cat([torch.ones(prompt.shape[:2], dtype=torch.long), (labels != -100).long()], 1)
    logits = decoder.model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).logits
    wanted = torch.cat([torch.full(prompt.shape[:2], -100), labels], 1)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten(), ignore_index=-100)


def one_way(way:str, kind:str, batch_size:int, batches:int) -> dict:
    """Rows/s and peak memory of one way, in this process; prints JSON."""
    cfg = Config(device="cpu", use_bf16=way == "ours", adapter_dropout=0.0, max_target_len=256)
    decoder, g = gemma(), np.random.default_rng(0)
    lengths = np.minimum(g.choice(target_lengths(kind)[1], batch_size * 32), 256)
    order = np.argsort(lengths) if way != "plain" else np.arange(len(lengths))  # ours buckets by length within windows of 32 batches
    cuts = [order[i * batch_size:(i + 1) * batch_size] for i in (np.linspace(0, 31, batches).round().astype(int))]
    model = LatentSummarizer(cfg, decoder.embedding_rms)
    named = set_trainable(model, ("adapter",))
    optimizer, = make_optimizers(named, cfg)
    latents = F.normalize(torch.randn(len(lengths), 8, 256), dim=-1)
    targets = [g.integers(2, 60000, n - 1).tolist() + [1] for n in lengths]
    start_gb, took, losses = peak_gb(), 0.0, []
    for n, cut in enumerate([cuts[len(cuts) // 2], *cuts]):  # the first is the warm-up
        start = time.perf_counter()
        labels = pad_labels([targets[i] for i in cut])
        with autocast(cfg, CPU):
            prefix = model.prefix(latents[cut])
            if way == "plain": loss = plain_loss(decoder, prefix.float(), labels)
            else: total, tokens = prefix_loss(decoder, prefix, labels); loss = total / tokens
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step(); optimizer.zero_grad()
        if n: took += time.perf_counter() - start
        losses.append(loss.item())
    return dict(rows_per_s=batch_size * len(cuts) / took, first_loss=losses[0], peak_gb=peak_gb(), weights_gb=start_gb, over_weights_gb=peak_gb() - start_gb)


def bench_adapter(opts) -> dict:
    out = {}
    for kind in ("samsum", "arxiv"):
        pairs = []
        for _ in range(opts.repeats):
            pair = {}
            for way in ("ours", "plain"):
                words = [sys.executable, __file__, "--one", way, kind, "--batch-size", str(opts.batch_size), "--batches", str(opts.batches)]
                pair[way] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
                print(kind, way, {k: round(v, 4) for k, v in pair[way].items()}, flush=True)
            pairs.append(pair)
        where, lengths = target_lengths(kind)
        def col(key, *ways, pairs=pairs):
            "Spread of a figure of one way, or of its ratio between two."
            return spread([p[ways[0]][key] / (p[ways[1]][key] if len(ways) > 1 else 1) for p in pairs])
        out[kind] = dict(targets=where, mean_target_tokens=round(float(np.minimum(lengths, 256).mean()), 1), batch_size=opts.batch_size, batches=opts.batches,
                         ours_rows_per_s=col("rows_per_s", "ours"), plain_rows_per_s=col("rows_per_s", "plain"), times_plain=col("rows_per_s", "ours", "plain"),
                         ours_over_weights_gb=col("over_weights_gb", "ours"), plain_over_weights_gb=col("over_weights_gb", "plain"),
                         share_of_plain_memory=col("over_weights_gb", "ours", "plain"), ours_peak_gb=col("peak_gb", "ours"), plain_peak_gb=col("peak_gb", "plain"),
                         share_of_plain_peak=col("peak_gb", "ours", "plain"))
    return out


def bench_loss(opts) -> dict:
    """Our loss and the straightforward one on the same rows, both in fp32."""
    decoder, g = gemma(), np.random.default_rng(1)
    prefix = torch.randn(2, 50, 640) * decoder.embedding_rms
    labels = pad_labels([g.integers(2, 60000, n).tolist() for n in (12, 40)])
    with torch.inference_mode():
        total, tokens = prefix_loss(decoder, prefix, labels)
        ours, plain = (total / tokens).item(), plain_loss(decoder, prefix, labels).item()
    return dict(ours=round(ours, 6), plain=round(plain, 6), difference=abs(ours - plain))


# --- going on ---------------------------------------------------------------------------------------------------------

def bench_resume(opts) -> dict:
    """Seconds from `latent_summ train --resume` (a cold process, mini preset) to its first step; sizes of checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        run, words = Path(folder) / "run", [sys.executable, "-m", "latent_summ", "train", "--preset", "mini", "--messenger-rows", "2000", "--save-every", "5"]
        words += ["--run-dir", str(run), "--preprocess-cache-dir", str(Path(folder) / "cache"), "--max-eval-samples", "50", "--no-use-tui"]
        seconds = []
        for n in range(opts.repeats + 1):
            begun = (run / "events.jsonl").stat().st_size if n else 0
            start, p = time.perf_counter(), subprocess.Popen(words + (["--resume"] if n else []), stdout=subprocess.DEVNULL)
            def new_events(begun=begun): return (run / "events.jsonl").read_text()[begun:] if (run / "events.jsonl").exists() else ""
            while p.poll() is None and '"event": "step"' not in new_events(): time.sleep(0.02)
            if n: seconds.append(time.perf_counter() - start)
            while p.poll() is None and not list(run.glob("checkpoints/step-*.pt")): time.sleep(0.05)
            p.kill()
            p.wait()
        mini = max(run.glob("checkpoints/step-*.pt"), key=lambda p: p.stat().st_size).stat().st_size
    model = LatentSummarizer(Config())
    full = sum(p.numel() for p in model.parameters()) * 4
    adapter = sum(p.numel() for p in model.adapter.parameters()) * 4
    return dict(seconds_to_first_step=spread(seconds), preset="mini", mini_step_checkpoint_mb=round(mini / 2**20, 1), full_size_model_mb=round(full / 2**20, 1),
                full_size_step_checkpoint_mb=round((2 * full + 2 * adapter) / 2**20, 1),
                full_size_is="model, best weights, and AdamW's two moments of the adapter, in fp32: computed from the shapes")


PARTS = dict(stage1=bench_stage1, adapter=bench_adapter, loss=bench_loss, resume=bench_resume)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    p.add_argument("--rows", type=int, default=3000, help="rows of stage 1")
    p.add_argument("--batch-size", type=int, default=4, help="rows in a batch of stages 2 and 4 (the straightforward way needs over 1 GB for four)")
    p.add_argument("--batches", type=int, default=4)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--output", type=Path, default=HERE / "results" / "train.json")
    p.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    opts = p.parse_args()
    if opts.one: print(json.dumps(one_way(*opts.one, opts.batch_size, opts.batches))); return
    out = json.loads(opts.output.read_text()) if opts.output.exists() else {}
    for name in opts.parts:
        print(f"== {name}", flush=True)
        size = f" --batch-size {opts.batch_size} --batches {opts.batches}" if name == "adapter" else f" --rows {opts.rows}" if name == "stage1" else ""
        key = name if name != "adapter" else f"adapter, batch {opts.batch_size}"
        out[key] = dict(command=f"python benchmarks/train.py --parts {name} --repeats {opts.repeats}{size}", machine=machine(), **PARTS[name](opts))
        write_json(opts.output, out)
    print(opts.output)


if __name__ == "__main__": main()
