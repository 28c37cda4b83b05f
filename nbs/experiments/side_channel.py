"""What do a few bytes of facts beside the latents bring, and what would the same bytes bring as bits of the latents? Writes nbs/experiments/side_channel.json.

    python nbs/experiments/side_channel.py train      # goes on from mini with stage 4, with facts and without: two minutes of one core each
    python nbs/experiments/side_channel.py measure    # held-out chats from fewer and coarser latents, with 0 to 32 bytes of facts

Both runs get the same rows, steps and noise on the latents; the facts are the only difference. Facts are only needed where latents are not enough,
so latents are rounded, and some are left out: those that carry the fewest bits (latent_bits.json) are then the average of training chats.
"""
import argparse
import json
from pathlib import Path

import torch

from latent_summ.data.messenger import chats
from latent_summ.data.side import pack_facts, side_facts
from latent_summ.model.compress import normalize_latents
from latent_summ.runtime import write_json
from latent_summ.train.run import checkpoint_folder, environment, save_model
from latent_summ.train.stages import run_pipeline
from latent_summ.use.evaluate import rounded
from latent_summ.use.facts import fact_recall, role_recall
from latent_summ.use.inference import Summarizer
from latent_summ.use.privacy import coarse
from latent_summ.use.sweep import stored_bytes

RESULTS = Path(__file__).resolve().parent / "side_channel.json"
BYTES = (0, 16, 32)
SIZES = ((2, 1), (4, 1), (6, 1), (8, 1), (8, 3)) # latents kept, bits a number


def train(opts):
    "Stage 4 once more, from the model in the package: with a side-channel, and without."
    start = Summarizer.from_pretrained("mini")
    for name, side in (("facts", max(BYTES)), ("alone", 0)):
        cfg = start.cfg.override(run_dir=str(opts.folder/name), side_channel=side, run_pretraining=False, finetune_middle_epochs=0, finetune_adapter_epochs=opts.epochs,
                                 max_train_samples=opts.rows, finetune_adapter_max_samples=None, latent_noise=opts.noise, learning_rate=3e-3, muon_learning_rate=3e-3,
                                 preprocess_cache_dir=str(opts.folder/"cache"), device="cpu", use_tui=False, max_eval_samples=200, seed=1)
        path = checkpoint_folder(cfg)/cfg.pretrain_best_model_filename
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(path, start.model, start.cfg, start.meta["backbones"], start.meta["stage"])
        run_pipeline(cfg, listeners=(lambda e: print(e, flush=True) if e["event"] in ("validation", "stage_end") else None,))


def signs(latents:torch.Tensor) -> torch.Tensor: # of length one
    "Latents of one bit a number."
    return normalize_latents(torch.where(latents >= 0, 1.0, -1.0), True)


def by_bits() -> list: # numbers of the latents
    "The latents, those first that carry the most bits."
    carried = json.loads(RESULTS.with_name("latent_bits.json").read_text())["bits"]["type/knocked out"]
    return sorted(range(len(carried)), key=lambda i: -carried[i]["all"])


def scored(rows:list, written:list) -> dict:
    "Facts, and facts in their role."
    facts = [fact_recall(t, r["facts"]) for t, r in zip(written, rows)]
    roles = [role_recall(t, r) for t, r in zip(written, rows)]
    total = sum(n for _, n in facts)
    return dict(facts=sum(k for k, _ in facts) / total, roles=sum(k for k, _, _ in roles) / total)


def measured(name:str, summarizer, rows:list, sizes:tuple) -> list: # of lines
    "Scores of one model for each number of bits, and each number of bytes of facts."
    latents = summarizer.encode([r["dialogue"] for r in rows])
    usual = normalize_latents(summarizer.encode([r["dialogue"] for r in chats(300, "train")]).mean(0), True)
    lines = []
    for kept, bits in SIZES:
        stored = signs(latents) if bits == 1 else coarse(latents, bits)
        out = by_bits()[kept:]
        stored[:, out] = usual[out]
        summaries = summarizer.compress_meaning(stored)
        for size in sizes:
            packed = [pack_facts(side_facts(r["dialogue"]), size) for r in rows]
            used = sum(len(p) + 1 for p in packed) / len(packed) if size else 0
            written = summarizer.decode(summaries, facts=packed if size else None, do_sample=False)
            line = dict(model=name, latents=kept, bits=bits, budget=size, bytes=stored_bytes(summarizer.cfg, bits) * kept / 8 + used, fact_bytes=used, **scored(rows, written))
            lines.append(rounded(line))
            print(lines[-1], flush=True)
    return lines


def measure(opts):
    "All models on the same held-out chats."
    rows = chats(opts.test_rows, "test")
    lines = measured("mini", Summarizer.from_pretrained("mini"), rows, (0,))
    lines += measured("alone", Summarizer.from_pretrained(opts.folder/"alone"), rows, (0,))
    lines += measured("facts", Summarizer.from_pretrained(opts.folder/"facts"), rows, BYTES)
    command = "python nbs/experiments/side_channel.py train measure"
    training = dict(rows=opts.rows, epochs=opts.epochs, latent_noise=opts.noise)
    write_json(opts.output, dict(command=command, training=training, rows=len(rows), lines=lines, environment=environment()))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("phases", nargs="+", choices=("train", "measure"))
    p.add_argument("--folder", type=Path, default=Path("runs/side_channel"), help="for the two runs (default: %(default)s)")
    p.add_argument("--rows", type=int, default=4000, help="training chats (default: %(default)s)")
    p.add_argument("--epochs", type=int, default=1, help="(default: %(default)s)")
    p.add_argument("--noise", type=float, default=2.0, help="on the latents while training (default: %(default)s)")
    p.add_argument("--test-rows", type=int, default=200, help="held-out chats (default: %(default)s)")
    p.add_argument("--output", type=Path, default=RESULTS)
    opts = p.parse_args()
    torch.set_num_threads(1)
    for phase in opts.phases: globals()[phase](opts)


if __name__ == "__main__": main()
