"""What keeps the facts? One line of nbs/experiments/bottleneck.json for each variant and seed.

    python nbs/experiments/facts_kept.py demo --seed 0            # one variant, about five minutes on two idle cores
    python nbs/experiments/facts_kept.py demo joint mixing        # several, one after the other
    python nbs/experiments/facts_kept.py --list                   # what there is

Each trains the mini preset with some settings changed and is judged on held-out chats of the built-in corpus: ROUGE, facts (there at all, and in
their right role), facts by type, and the loss ladder. A variant that only changes stages 3 and 4 takes up the pretraining of the one it names.
"""
import argparse
import json
import re
import shutil
from pathlib import Path

import torch

from latent_summ.config import Config
from latent_summ.use.evaluate import evaluate_predictions, rounded
from latent_summ.use.ladder import ladder_report, loss_ladder, reconstruction
from latent_summ.use.facts import fact_recall
from latent_summ.use.inference import Summarizer
from latent_summ.runtime import write_json
from latent_summ.data.sources import load_pairs
from latent_summ.train.run import checkpoint_folder, environment
from latent_summ.train.stages import run_pipeline

RESULTS = Path(__file__).resolve().parent / "bottleneck.json"
LONG = dict(pretrain_middle_epochs=3, pretrain_adapter_epochs=2, finetune_middle_epochs=3, finetune_adapter_epochs=2)
LESSON = dict(teach_encoder_steps=5000, teach_encoder_batch_size=32, teach_encoder_learning_rate=2e-3, teach_encoder_readout=1.0, teach_encoder_dialogues=0.5,
              num_encoder_unfrozen_layers=6, messenger_rows=40000, middle_transformer_layers=4, pretrain_adapter_epochs=3,
              finetune_middle_epochs=4, finetune_adapter_epochs=2, finetune_adapter_max_samples=40000)
WORDS = LESSON | dict(teach_encoder_words=1.0)
SHORT = WORDS | dict(finetune_middle_epochs=2, finetune_adapter_epochs=1, finetune_adapter_max_samples=20000)
ALONE = dict(finetune_adapter_train_middle=False, latent_mixing=0.0)
VARIANTS = { # name -> (what it is, preset, settings changed, variant whose pretraining it takes up)
    "demo": ("what `latent_summ demo` trains: the mini preset (stage 4 trains middle and adapter, half of the rows' latents mixed with the right ones)", "mini", {}, None),
    "reference": ("the reference's recipe on the same backbones and rows: one mean vector, frozen random compression, MSE + contrastive, AdamW", "mini-reference", LONG, None),
    "adapter alone": ("stage 4 trains the adapter only, as the reference does", "mini", ALONE, "demo"),
    "no mixing": ("stage 4 trains middle and adapter, on predicted latents only", "mini", dict(latent_mixing=0.0), "demo"),
    "no middle": ("no stage 3, and stage 4 trains the adapter only: what the encoder alone knows of the task", "mini", ALONE | dict(finetune_middle_epochs=0), "demo"),
    "no stage 3": ("the middle learns in stage 4 only", "mini", dict(finetune_middle_epochs=0), "demo"),
    "cross-entropy": ("stage 3 by the decoder's cross-entropy instead of MSE + contrastive, stage 4 trains the adapter only", "mini",
                      ALONE | dict(latent_mse_weight=0.0, contrastive_weight=0.0, middle_cross_entropy_weight=1.0), "demo"),
    "mse + cross-entropy": ("stage 3 by all three, stage 4 trains the adapter only", "mini", ALONE | dict(middle_cross_entropy_weight=1.0), "demo"),
    "mse": ("stage 3 without the contrastive loss, stage 4 trains the adapter only", "mini", ALONE | dict(contrastive_weight=0.0), "demo"),
    "hard negatives": ("stage 3 with hard negatives in the contrastive loss, stage 4 trains the adapter only", "mini", ALONE | dict(contrastive_hardness=5.0), "demo"),
    "noise": ("noise on the latents in stage 4", "mini", dict(latent_noise=0.1), "demo"),
    "cached latents": ("stages 3 and 4 from cached latents instead of the encoder's vectors (`cache_store_latents`)", "mini", dict(cache_store_latents=True), "demo"),
    "teacher": ("a teacher in stage 4: the divergence from the decoder that reads the chat itself, as heavy as the words", "mini",
                dict(teacher_kl_weight=1.0, cache_store_text=True), "demo"),
    "decoder correction": ("a low-rank correction of the decoder learns in stage 4", "mini", dict(decoder_lora_rank=8), None),
    "segments": ("eight means in order instead of latent tokens", "mini", dict(encoder_pooling="segments"), None),
    "fact weight": ("names and numbers count three times in stages 2 and 4", "mini", dict(fact_token_weight=3.0), None),
    "adamw": ("AdamW instead of Muon", "mini", dict(optimizer="adamw", learning_rate=1e-3), None),
    "longer": ("three epochs in stage 2 and two in stage 4, as the demo had before it was made shorter", "mini", dict(pretrain_adapter_epochs=3, finetune_adapter_epochs=2), None),
    "long stage 3": ("thirty epochs in stage 3 instead of two", "mini", dict(finetune_middle_epochs=30), "demo"),
    "large middle": ("four layers instead of two, rank 256 instead of 160", "mini", dict(middle_transformer_layers=4, adapter_flat_rank=256), None),
    "small latents": ("eight latents of 64 numbers instead of 256", "mini", dict(latent_dim=64), None),
    "few latents": ("four latents instead of eight", "mini", dict(latent_seq_len=4), None),
    "words": ("a stage 0 of 5,000 steps: half of its rows are chats, and each vector must tell which words stand in its part of the text; 40,000 pairs, four layers in the middle",
              "mini", WORDS, None),
    "queries": ("the same stage 0 as `words`, but for queries over the encoder's last states instead of latent tokens", "mini", WORDS | dict(encoder_pooling="queries"), None),
    "short": ("stages 3 and 4 behind the stage 0 of `words`, in about ten minutes: MSE + contrastive, then middle and adapter", "mini", SHORT, "words"),
    "short, mse": ("the same, stage 3 without the contrastive loss", "mini", SHORT | dict(contrastive_weight=0.0), "words"),
    "short, cross-entropy": ("the same, stage 3 by the decoder's cross-entropy alone, half as many steps", "mini",
                             SHORT | dict(latent_mse_weight=0.0, contrastive_weight=0.0, middle_cross_entropy_weight=1.0, finetune_middle_epochs=1), "words"),
    "short, all three": ("the same, stage 3 by all three losses, half as many steps", "mini", SHORT | dict(middle_cross_entropy_weight=1.0, finetune_middle_epochs=1), "words"),
    "short, hard negatives": ("the same, with hard negatives in the contrastive loss", "mini", SHORT | dict(contrastive_hardness=5.0), "words"),
    "short, no stage 3": ("the same, no stage 3 and twice the rows in stage 4", "mini", SHORT | dict(finetune_middle_epochs=0, finetune_adapter_max_samples=40000), "words"),
    "short, adapter alone": ("the same, stage 4 trains the adapter only", "mini", SHORT | ALONE, "words"),
    "short, noise": ("the same, with noise on the latents in stage 4", "mini", SHORT | dict(latent_noise=0.1), "words"),
    "words, cross-entropy": ("stage 3 by the decoder's cross-entropy alone, half as many steps (as much time as `words`)", "mini",
                             WORDS | dict(latent_mse_weight=0.0, contrastive_weight=0.0, middle_cross_entropy_weight=1.0, finetune_middle_epochs=2), "words"),
    "words, all three": ("stage 3 by all three losses, half as many steps (as much time as `words`)", "mini",
                         WORDS | dict(middle_cross_entropy_weight=1.0, finetune_middle_epochs=2), "words"),
    "words, four latents": ("as `words`, but stage 0 teaches four latent tokens and all that follows has four latents", "mini", WORDS | dict(latent_seq_len=4), None),
    "no words": ("the same stage 0, without that question", "mini", LESSON, None),
    "many pairs": ("96,000 pairs instead of 16,000, six layers instead of two, four epochs in stage 3, 36,000 of the pairs in stage 4", "mini",
                   dict(messenger_rows=96000, middle_transformer_layers=6, finetune_middle_epochs=4, finetune_adapter_max_samples=36000, use_fp16=True), None),
}


def config(name:str, seed:int, encoder:str="mini") -> Config:
    "The settings of a variant."
    _, preset, changes, start = VARIANTS[name]
    taken_up, place = dict(run_pretraining=False) if start else {}, "" if encoder == "mini" else "-encoder"
    return Config.preset(preset).override(run_dir=f"runs/bottleneck/{re.sub('[ ,]+', '-', name)}-{seed}{place}", preprocess_cache_dir=f"cache/{preset}{place}", seed=seed,
                                          modernbert_model=encoder, **changes, **taken_up)


def train(name:str, seed:int, encoder:str="mini", resume:bool=False) -> Path:
    "Run a variant's stages."
    cfg, start = config(name, seed, encoder), VARIANTS[name][3]
    if start and not resume:
        source = checkpoint_folder(config(start, seed, encoder)) / cfg.pretrain_best_model_filename
        if not source.exists(): train(start, seed, encoder)
        shutil.rmtree(cfg.run_dir, ignore_errors=True)
        checkpoint_folder(cfg).mkdir(parents=True)
        shutil.copy(source, checkpoint_folder(cfg) / cfg.pretrain_best_model_filename)
        if cfg.teach_encoder_steps: shutil.copytree(Path(config(start, seed, encoder).run_dir) / "encoder", Path(cfg.run_dir) / "encoder")
    return run_pipeline(cfg, resume=resume, overwrite=not start and not resume, listeners=(_told,))


def _told(event:dict):
    if event["event"] in ("stage_end", "validation"): print({k: v for k, v in event.items() if isinstance(v, (int, float, str))}, flush=True)


def judge(run:Path, rows:int, climbed:int) -> dict:
    "Scores on held-out chats, and the ladder on the first of them."
    summarizer, pairs = Summarizer.from_pretrained(run), list(load_pairs(Config.preset("mini"), "test", rows))
    report = evaluate_predictions(pairs, summarizer.summarize([r["dialogue"] for r in pairs]))
    ladder = ladder_report(loss_ladder(summarizer, pairs[:climbed]))
    keys = ("rouge1", "rouge2", "rougeL", "fact_recall", "role_recall", "facts", "intervals", "exact_match")
    back = reconstruction(summarizer, [r["summary"] for r in pairs[:climbed]])
    coarse = {f"{bits} bits": _kept(summarizer, pairs, bits) for bits in (8, 4, 3)}
    pair = {which: getattr(summarizer, which).identity["revision"][:12] for which in ("encoder", "decoder")}
    return {k: report[k] for k in keys if k in report} | dict(rows=len(pairs), ladder=ladder, reconstruction=back, latents_of=coarse, backbones=pair)


def _kept(summarizer, pairs:list, bits:int) -> float:
    "Share of facts kept when each number of the summary latents has only so many bits (one scale for each vector)."
    latents = summarizer.compress_meaning(summarizer.encode([r["dialogue"] for r in pairs]))
    scale = latents.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    texts = summarizer.decode((latents / scale).round() * scale, do_sample=False)
    counts = [fact_recall(t, r["facts"]) for t, r in zip(texts, pairs)]
    return sum(kept for kept, _ in counts) / sum(facts for _, facts in counts)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", choices=[[], *VARIANTS], help="variants")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--encoder", default="mini", help="a folder: for instance build/masked/encoder of `make_mini encoder --out build/masked --masked-steps 900 "
                   "--steps 1 --layers 6`, which has only guessed masked words")
    p.add_argument("--rows", type=int, default=500, help="held-out chats (default: %(default)s)")
    p.add_argument("--ladder-rows", type=int, default=200, help="of them for the ladder (default: %(default)s)")
    p.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    p.add_argument("--list", action="store_true", help="the variants")
    p.add_argument("--output", type=Path, default=RESULTS)
    opts = p.parse_args()
    if opts.list or not opts.names:
        for name, (what, *_) in VARIANTS.items(): print(f"{name:22} {what}")
    for name in opts.names:
        run = train(name, opts.seed, opts.encoder, opts.resume)
        times = [json.loads(line)["time"] for line in (run / "events.jsonl").read_text().splitlines()]
        variant, other = (name, "") if opts.encoder == "mini" else (f"{name}, other encoder", f" --encoder {opts.encoder}")
        what = VARIANTS[name][0] + " (encoder: never told of summaries)" * bool(other)
        found = dict(variant=variant, what=what, changed=VARIANTS[name][2], seed=opts.seed, seconds=round(times[-1] - times[0]), threads=torch.get_num_threads(),
                     **judge(run, opts.rows, opts.ladder_rows), environment=environment(), command=f"python nbs/experiments/facts_kept.py {name!r} --seed {opts.seed}{other}")
        print(json.dumps(rounded(found)), flush=True)
        known = json.loads(opts.output.read_text()) if opts.output.exists() else []
        write_json(opts.output, [k for k in known if (k["variant"], k["seed"]) != (variant, opts.seed)] + [rounded(found)])


if __name__ == "__main__": main()
