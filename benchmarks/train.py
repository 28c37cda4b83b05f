"""How fast the stages train, and in how much memory, beside the straightforward way, beside Hugging Face's `Trainer`, and beside the bare arithmetic.

    python benchmarks/train.py                          to benchmarks/results/train.json
    python benchmarks/train.py --full                   more rounds, batches of 4 and 8, and the time to go on after a stop
    python benchmarks/train.py --device cuda --full     on a GPU; the parts of stage 1 with rows in its memory

Random weights of full size: the middle of the reference, and a decoder of Gemma-3-270m's shape (262,144 words); their speed is that of the real ones.
Targets are as long as SAMSum summaries and arXiv abstracts, counted as one token for four characters; the texts are read from the folder in
LATENT_SUMM_DATA (without it, the built-in messenger corpus stands in).

- stage1: the trainer on batches of 30 and accumulation 3, beside the same forward, backward and step on batches that are ready (in the same precision,
  and in fp32), and beside transformers' `Trainer` with the same rows, batches, precision and optimizer
- adapter, adapter_8: one step of stages 2 and 4 on batches of 4 and 8 rows, beside rows padded to 256 tokens with logits for every position in fp32.
  Each way runs in a process of its own, for its peak memory, in turns
- loss: our loss and the straightforward one on the same rows agree
- stage4: rows/s and peak memory of stage 4 at the reference's batch of 30 (full size only with --full: it takes minutes on a CPU)
- lesson, lesson_queries: one step of stage 0 as `--preset best` begins it (name the words, tell which stand where), with latent tokens and with queries,
  8 rows of 160 encoder tokens and 128 words to name, in a process of its own; and the share of the machine's bf16 rate that the encoder's products alone make
- lesson_decoder: one step of stage 0 as it ends, with latent tokens: the same, and the first 128 words of each row through the frozen decoder as well; in
  the share, the products of the decoder's layers count too, those with its 262,144 words do not
- muon: one step of Muon for the matrices of `--preset mini`: torch's own in bf16, and ours in fp32 (what a CPU without bf16 takes), with every round on the
  matrix itself and on its Gram matrix where that is shorter
- resume: seconds from `latent_summ train --resume` to its first step
"""
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from _common import MINI, child, gemma, modernbert, options, parse, peak_gb, ratio, run_parts, spread, sync, timed, turns

from latent_summ.encode.backbones import Encoder
from latent_summ.encode.trunk import with_trunk
from latent_summ.config import Config
from latent_summ.model.decode import pad_labels, prompt_embeds
from latent_summ.model.head import prefix_loss
from latent_summ.model.model import LatentSummarizer
from latent_summ.runtime import autocast, autocast_dtype
from latent_summ.train.stages import _speed_up
from latent_summ.train.lesson import lesson_rates
from latent_summ.train.objectives import stage_objective
from latent_summ.plan import stage_table
from latent_summ.train.rows import with_latents, StageRows, Vectors
from latent_summ.train.teach import Lesson, lesson_loss, with_queries
from latent_summ.train.trainer import Job, Trainer, set_trainable
from latent_summ.train import optim
from latent_summ.train.optim import Float32Muon, make_optimizers


# --- stage 1 ----------------------------------------------------------------------------------------------------------

class ForTrainer(torch.nn.Module):
    "Stage 1 as transformers' `Trainer` wants it: rows in, loss out."
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss
    def forward(self, inputs): return dict(loss=self.loss(dict(inputs=inputs), 0.0)[0])


def hugging_face(model, loss, cfg, rows, batch_size:int, folder) -> float: # seconds of `train()`
    "The same rows with the library's own loop; its files go to a folder that is deleted."
    transformers.logging.set_verbosity_error()
    args = transformers.TrainingArguments(str(folder), per_device_train_batch_size=batch_size, gradient_accumulation_steps=cfg.gradient_accumulation_steps, num_train_epochs=1,
                                          learning_rate=cfg.learning_rate, weight_decay=cfg.weight_decay, bf16=autocast_dtype(cfg, rows.inputs.values.device) is torch.bfloat16,
                                          use_cpu=rows.inputs.values.device.type == "cpu", save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
                                          optim="adamw_torch", dataloader_pin_memory=False)
    class Rows(torch.utils.data.Dataset):
        def __len__(self): return len(rows)
        def __getitem__(self, i): return dict(inputs=rows.inputs[i])
    return timed(transformers.Trainer(ForTrainer(model, loss), args, train_dataset=Rows()).train)[0]


def bench_stage1(opts) -> dict:
    """Rows/s of the trainer, of the bare arithmetic, and of transformers' `Trainer`."""
    device, n = torch.device(opts.device), opts.rows or (262_144 if opts.device == "cuda" else 9000 if opts.full else 1800)
    size = opts.batch_size or (8192 if opts.device == "cuda" else 30)
    cfg = Config(device=opts.device, gradient_accumulation_steps=3, use_stop_latent=False, use_tui=False)
    torch.manual_seed(0)
    model = LatentSummarizer(cfg).to(device)
    rows = StageRows(Vectors(torch.randint(-127, 128, (n, 1, 768), dtype=torch.int8, device=device), torch.rand(n, 1, 1, device=device) / 40))
    stage, loading = stage_table(cfg)[0], []
    def loss(batch, progress): return stage_objective(stage)(model, None, cfg, with_latents(batch, model.document_latents), progress)

    def ours():
        trainer = Trainer(Job("pretrain_middle", model, ("middle",), rows, loss, 1, size), cfg, device)
        start = time.perf_counter()
        trainer.run()
        loading.append(trainer.loading / (time.perf_counter() - start))

    def bare(cfg=cfg):
        named = set_trainable(model, ("middle",))
        optimizer, = make_optimizers(named, cfg)
        batches = [dict(inputs=rows.inputs.batch(list(range(i, min(i + size, n))))) for i in range(0, n, size)]
        def steps():
            for i in range(0, len(batches), 3):
                for batch in batches[i:i + 3]:
                    with autocast(cfg, device): total, _ = loss(batch, 0)
                    (total / 3).backward()
                torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
                optimizer.step()
                optimizer.zero_grad()
        return timed(steps)[0]  # without making the batches

    def theirs():
        set_trainable(model, ("middle",))
        with tempfile.TemporaryDirectory() as folder: return hugging_face(model, loss, cfg, rows, size, folder)

    runs = turns(dict(ours=ours, bare=bare, bare_fp32=lambda: bare(cfg.override(use_bf16=False)), trainer=theirs), opts.repeats or (5 if opts.full else 3))
    took = {k: [t[2] or t[0] for t in v] for k, v in runs.items()}  # the peers say themselves how long their loop took
    each = lambda key: spread([n / t for t in took[key]])
    over = lambda a, b: spread(np.divide(took[a], took[b]))
    return dict(rows=n, batch_size=size, accumulation=3, dtype=str(autocast_dtype(cfg, device))[6:], peer=f"transformers {transformers.__version__} Trainer",
                **{f"{k}_rows_per_s": each(k) for k in took}, share_of_bare=over("bare", "ours"), times_trainer=over("trainer", "ours"),
                loading_share=spread(loading), bf16_gain=over("bare_fp32", "bare"))


# --- stages 2 and 4 ---------------------------------------------------------------------------------------------------

def target_lengths(kind:str) -> tuple:
    """(where from, tokens of each target text, end token included): characters / 4."""
    folder = os.environ.get("LATENT_SUMM_DATA")
    if not folder:
        from latent_summ.data.sources import load_pairs, load_texts
        cfg = Config.preset("mini").override(messenger_rows=2000)
        texts = [r["summary"] for r in load_pairs(cfg)] if kind == "samsum" else [r["text"] for r in load_texts(cfg, "messenger-texts")]
        return "built-in messenger corpus", [len(t) // 4 + 1 for t in texts]
    name, key = dict(samsum=("samsum.train.jsonl.xz", "summary"), arxiv=("arxiv.jsonl.xz", "abstract"))[kind]
    texts = [json.loads(line)[key] for line in lzma.open(Path(folder) / name, "rt", encoding="utf-8")]
    return name, [len(t) // 4 + 1 for t in texts if t]


def plain_loss(decoder, prefix, labels):
    """The straightforward way: every row padded to 256 tokens, logits for every position, fp32."""
    labels = F.pad(labels, (0, 256 - labels.shape[1]), value=-100)
    prompt = prompt_embeds(decoder, prefix)
    inputs = torch.cat([prompt, decoder.embed(labels.clamp_min(0))], 1)
    mask = torch.cat([torch.ones(prompt.shape[:2], dtype=torch.long, device=labels.device), (labels != -100).long()], 1)
    logits = decoder.model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).logits
    wanted = torch.cat([labels.new_full(prompt.shape[:2], -100), labels], 1)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten(), ignore_index=-100)


def decoder_flops(decoder, positions:int, targets:int) -> float:
    "Forward, and backward to the inputs alone (the weights are frozen): twice the products of the layers and of the output layer, attention left out."
    c, head = decoder.model.config, decoder.model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for p in decoder.model.base_model.layers.parameters())
    return 4.0 * (layers * positions + min(head, c.vocab_size * c.hidden_size) * targets)


def one_way(opts) -> dict:
    """Rows/s and peak memory of one way, in this process."""
    way, kind = opts.one
    cfg, device = Config(device=opts.device, use_bf16=way == "ours", use_fp16=False, adapter_dropout=0.0, max_target_len=256), torch.device(opts.device)
    decoder, g, size = gemma(opts.toy), np.random.default_rng(0), opts.batch_size
    lengths = np.minimum(g.choice(target_lengths(kind)[1], size * 32), 256)
    order = np.argsort(lengths) if way != "plain" else np.arange(len(lengths))  # ours buckets by length within windows of 32 batches
    cuts = [order[i * size:(i + 1) * size] for i in (np.linspace(0, 31, opts.batches or 2).round().astype(int))]
    decoder.model.to(device)
    model = LatentSummarizer(cfg, decoder.embedding_rms).to(device)
    if way == "ours": decoder = with_trunk(cfg, decoder, device)
    named = set_trainable(model, ("adapter",))
    optimizer, = make_optimizers(named, cfg)
    latents = F.normalize(torch.randn(len(lengths), 8, 256), dim=-1).to(device)
    targets = [g.integers(2, 3000 if opts.toy else 60000, n - 1).tolist() + [1] for n in lengths]
    start_gb, took, losses, flops = peak_gb(device), 0.0, [], 0.0
    for n, cut in enumerate([cuts[len(cuts) // 2], *cuts]):  # the first is the warm-up
        sync()
        start = time.perf_counter()
        labels = pad_labels([targets[i] for i in cut], device)
        with autocast(cfg, device):
            prefix = model.prefix(latents[cut])
            if way == "plain": loss = plain_loss(decoder, prefix.float(), labels)
            else: total, tokens = prefix_loss(decoder, prefix, labels); loss = total / tokens
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        sync()
        losses.append(loss.item())
        if not n: continue
        took += time.perf_counter() - start
        if way == "ours": flops += decoder_flops(decoder, size * (52 + labels.shape[1]), int((labels != -100).sum()))
    peak = peak_gb(device)
    return dict(rows_per_s=size * len(cuts) / took, tflops=flops / took / 1e12, first_loss=losses[0], peak_gb=peak, weights_gb=start_gb, over_weights_gb=peak - start_gb)


def adapter_pairs(opts, kind:str, size:int, repeats:int) -> dict:
    "Both ways in turns, each in a process of its own."
    words = ["--batch-size", size, "--batches", opts.batches or (4 if opts.full else 2), "--threads", opts.threads, "--device", opts.device, *["--toy"] * opts.toy]
    pairs = [{way: child(__file__, "--one", way, kind, *words) for way in ("ours", "plain")} for _ in range(repeats)]
    where, lengths = target_lengths(kind)
    def col(key, *ways): return spread([p[ways[0]][key] / (p[ways[1]][key] if len(ways) > 1 else 1) for p in pairs])
    peak = opts.limits["matmul_bf16_gflops"] / 1e3
    return dict(targets=where, mean_target_tokens=round(float(np.minimum(lengths, 256).mean()), 1), batch_size=size,
                ours_rows_per_s=col("rows_per_s", "ours"), plain_rows_per_s=col("rows_per_s", "plain"), times_plain=col("rows_per_s", "ours", "plain"),
                share_of_bf16_matmul=spread([p["ours"]["tflops"] / peak for p in pairs]),
                share_of_plain_memory=col("over_weights_gb", "ours", "plain"), ours_over_weights_gb=col("over_weights_gb", "ours"),
                plain_over_weights_gb=col("over_weights_gb", "plain"), ours_peak_gb=col("peak_gb", "ours"), plain_peak_gb=col("peak_gb", "plain"))


def bench_adapter(opts, size:int) -> dict:
    size = opts.batch_size or size
    return {f"{kind}, batch {size}": adapter_pairs(opts, kind, size, opts.repeats or (2 if opts.full else 1)) for kind in ("samsum", "arxiv")}


def stage4(opts) -> dict:
    "Rows/s and peak memory of stage 4's own loss, in this process."
    cfg, device = Config(device=opts.device, use_stop_latent=False), torch.device(opts.device)
    decoder, g = gemma(opts.toy), np.random.default_rng(0)
    decoder.model.to(device)
    model = LatentSummarizer(cfg, decoder.embedding_rms).to(device)
    _speed_up(cfg, model, decoder, device)
    decoder = with_trunk(cfg, decoder, device)
    stage, = [s for s in stage_table(cfg) if s.name == "finetune_adapter"]
    lengths = np.minimum(target_lengths("samsum")[1][:90], 256)
    rows = StageRows(Vectors(torch.randn(90, 1, 768)), targets=[g.integers(2, 3000, n - 1).tolist() + [1] for n in lengths])
    start = peak_gb(device)
    def loss(batch, progress): return stage_objective(stage)(model, decoder, cfg, with_latents(batch, model.document_latents), progress)
    trainer = Trainer(Job(stage.name, model, stage.trains, rows, loss, 1, 30), cfg, device)
    seconds = timed(trainer.run)[0]
    return dict(rows_per_s=90 / seconds, peak_gb=peak_gb(device), weights_gb=start)


def bench_stage4(opts) -> dict:
    out = child(__file__, "--one", "stage4", "samsum", "--threads", opts.threads, "--device", opts.device, *["--toy"] * opts.toy)
    return dict(batch_size=30, accumulation=3, rows=90) | {k: round(v, 3) for k, v in out.items()}


def layer_sizes(model) -> list: return [sum(p.numel() for p in layer.parameters()) for layer in model.layers]


def lesson_flops(encoder, top:int, bottom:bool, tokens:int) -> float:
    "Of the encoder's layers: forward, backward through all of them to the latent tokens (`bottom`) or through the top ones, and the top ones' weights."
    sizes = layer_sizes(encoder)
    highest = sum(sizes[len(sizes) - top:])
    return 2.0 * tokens * (sum(sizes) + (sum(sizes) if bottom else highest) + highest)


def lesson(opts) -> dict:
    "Seconds of steps of stage 0, and peak memory, in this process."
    device, rows, long, wanted = torch.device(opts.device), opts.batch_size or 8, 160, 128
    top, (pooling, _, through) = 2 if opts.toy else 6, opts.one[1].partition("+")
    cfg = Config.preset("best").override(device=opts.device, num_encoder_unfrozen_layers=top, encoder_pooling=pooling)
    decoder, encoder = gemma(opts.toy), Encoder(modernbert(opts.toy), transformers.AutoTokenizer.from_pretrained(MINI / "encoder"))
    encoder.model.to(device), decoder.model.to(device)
    if cfg.encoder_pooling == "queries": encoder = with_queries(encoder, cfg.latent_seq_len)
    start, taught = peak_gb(device), Lesson(cfg, encoder, with_trunk(cfg, decoder, device) if through else decoder).to(device)
    named = set_trainable(taught, ("encoder_top", "tokens", "queries", "readout"))
    optimizers, g = make_optimizers(named, lesson_rates(cfg)), torch.Generator().manual_seed(0)
    def some(n): return torch.randint(20, 3000, (rows, n), generator=g)
    head = encoder.latent_ids[:cfg.latent_seq_len] if cfg.encoder_pooling == "latent_tokens" else []
    def step():
        ids = some(long)
        ids[:, 1:1 + len(head)] = torch.tensor(head, dtype=torch.long)
        ids, labels = ids.to(device), some(wanted).to(device)
        batch = dict(inputs=dict(input_ids=ids, attention_mask=torch.ones_like(ids)), labels=labels, is_pair=torch.zeros(rows, device=device))
        with autocast(cfg, device): loss, _ = lesson_loss(taught, batch, 1.0 if through else 0.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for optimizer in optimizers: optimizer.step(), optimizer.zero_grad()
    step()
    took = [timed(step)[0] for _ in range(opts.repeats or 3)]
    flops = lesson_flops(encoder.model, top, bool(head), rows * long)
    if through: flops += 4.0 * rows * (cfg.prefix_len + wanted) * sum(layer_sizes(decoder.model.model)) # forward, and back to the prefix
    return dict(seconds=took, tflops=[flops / s / 1e12 for s in took], peak_gb=peak_gb(device), weights_gb=start, learning=sum(p.numel() for _, p in named))


def bench_lesson(opts, pooling:str) -> dict:
    words = ["--batch-size", opts.batch_size or 8, "--repeats", opts.repeats or 3, "--threads", opts.threads, "--device", opts.device, *["--toy"] * opts.toy]
    out = child(__file__, "--one", "lesson", pooling, *words)
    return dict(batch_size=opts.batch_size or 8, tokens_per_row=160, words_to_name=128, learning_parameters=out["learning"], seconds_per_step=spread(out["seconds"]),
                share_of_bf16_matmul=spread([t / (opts.limits["matmul_bf16_gflops"] / 1e3) for t in out["tflops"]]),
                peak_gb=round(out["peak_gb"], 3), weights_gb=round(out["weights_gb"], 3))


def bench_loss(opts) -> dict:
    """Our loss and the straightforward one on the same rows, both in fp32."""
    decoder, g = gemma(opts.toy), np.random.default_rng(1)
    decoder.model.to(opts.device)
    prefix = torch.randn(2, 50, 640, generator=torch.Generator().manual_seed(1)).to(opts.device) * decoder.embedding_rms
    labels = pad_labels([g.integers(2, 3000 if opts.toy else 60000, n).tolist() for n in (12, 40)], opts.device)
    with torch.inference_mode():
        total, tokens = prefix_loss(decoder, prefix, labels)
        ours, plain = (total / tokens).item(), plain_loss(decoder, prefix, labels).item()
    return dict(ours=round(ours, 6), plain=round(plain, 6), difference=abs(ours - plain))


# --- the optimizer ----------------------------------------------------------------------------------------------------

def bench_muon(opts) -> dict:
    """Seconds of a step of torch's Muon and of ours."""
    cfg = Config.preset("mini")
    torch.manual_seed(0)
    groups = make_optimizers(list(LatentSummarizer(cfg).named_parameters()), cfg)[-1].param_groups
    shapes = [tuple(p.shape) for p in groups[0]["params"]]
    device = torch.device(opts.device)

    def stepper(kind):
        params = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
        for p in params: p.grad = torch.randn_like(p)
        return kind(params, lr=cfg.muon_learning_rate).step

    ours = stepper(Float32Muon)
    def on_itself():
        shorter, optim._gram_rounds = optim._gram_rounds, optim._square_rounds
        try: ours()
        finally: optim._gram_rounds = shorter

    runs = turns({"torch": stepper(torch.optim.Muon), "on_itself": on_itself, "ours": ours}, opts.repeats or 5)
    seconds = {way: spread([wall for wall, _, _ in times]) for way, times in runs.items()}
    return dict(matrices=len(shapes), numbers=sum(rows * columns for rows, columns in shapes), seconds=seconds,
                times_torch=ratio(runs["torch"], runs["ours"]), times_on_itself=ratio(runs["on_itself"], runs["ours"]))


# --- going on ---------------------------------------------------------------------------------------------------------

def bench_resume(opts) -> dict:
    """Seconds from `latent_summ train --resume` (a cold process, mini preset) to its first step; sizes of checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        run, words = Path(folder) / "run", [sys.executable, "-m", "latent_summ", "train", "--preset", "mini", "--messenger-rows", "2000", "--save-every", "5"]
        words += ["--run-dir", str(run), "--preprocess-cache-dir", str(Path(folder) / "cache"), "--max-eval-samples", "50", "--no-use-tui"]
        seconds = []
        for n in range((opts.repeats or 3) + 1):
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


PARTS = dict(stage1=bench_stage1, adapter=lambda opts: bench_adapter(opts, 4), adapter_8=lambda opts: bench_adapter(opts, 8), loss=bench_loss, stage4=bench_stage4,
             lesson=lambda opts: bench_lesson(opts, "latent_tokens"), lesson_queries=lambda opts: bench_lesson(opts, "queries"),
             lesson_decoder=lambda opts: bench_lesson(opts, "latent_tokens+decoder"), muon=bench_muon, resume=bench_resume)


def main():
    p = options(__doc__, PARTS, quick=("stage1", "adapter", "loss"))
    p.add_argument("--rows", type=int, help="rows of stage 1 (default: 1800, with --full 9000, on a GPU 262,144)")
    p.add_argument("--batch-size", type=int, help="rows in a batch (the straightforward way needs over 1 GB for four)")
    p.add_argument("--batches", type=int, help="batches of the adapter's steps (default: 2, with --full 4)")
    p.add_argument("--repeats", type=int, help="rounds")
    p.add_argument("--one", nargs=2, help="one way alone (ours, plain or stage4; samsum or arxiv; or lesson and a pooling, with +decoder): what the other processes run")
    opts = parse(p)
    if opts.one: print(json.dumps(dict(stage4=stage4, lesson=lesson).get(opts.one[0], one_way)(opts)))
    else: run_parts(__file__, opts, PARTS)


if __name__ == "__main__": main()
