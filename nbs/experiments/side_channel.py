"""What do a few bytes of facts beside the latents bring, and what would the same bytes bring as bits of the latents? Writes nbs/experiments/side_channel.json.

    python -m latent_summ.make_mini summarizer --out build/alone --rows 40000 --varied --side-channel 0   # the rival: half an hour
    python nbs/experiments/side_channel.py --alone build/alone/summarizer                                 # 10 minutes

Two models, trained alike on the same chats: `mini`, the one in the package, reads facts beside its latents, and `alone` has never seen any. Both write
held-out chats of the corpus, and the same chats with made-up names for all who speak, from fewer and coarser latents. Latents that are left out,
those first that carry the fewest bits (latent_bits.json), are then the average of training chats.
"""
import argparse
import json
import random
from pathlib import Path

import torch

from latent_summ.data.messenger import chats
from latent_summ.data.side import pack_facts, side_facts
from latent_summ.data.varied import with_made_up_names
from latent_summ.model.compress import normalize_latents
from latent_summ.runtime import write_json
from latent_summ.train.run import environment
from latent_summ.use.evaluate import rounded
from latent_summ.use.facts import fact_recall, role_recall
from latent_summ.use.inference import Summarizer
from latent_summ.use.privacy import coarse
from latent_summ.use.sweep import stored_bytes

RESULTS = Path(__file__).resolve().parent / "side_channel.json"
BYTES = (0, 16, 32, 48)
SIZES = ((4, 1), (6, 1), (8, 1), (8, 3), (8, 8)) # latents kept, bits a number


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


def measured(model:str, names:str, summarizer, rows:list) -> list: # of lines
    "Scores of one model for each size of the latents, and each number of bytes of facts."
    latents = summarizer.encode([r["dialogue"] for r in rows])
    usual = normalize_latents(summarizer.encode([r["dialogue"] for r in chats(300, "train")]).mean(0), True)
    facts = [side_facts(r["dialogue"]) for r in rows]
    lines = []
    for kept, bits in SIZES:
        stored = signs(latents) if bits == 1 else coarse(latents, bits)
        out = by_bits()[kept:]
        stored[:, out] = usual[out]
        summaries = summarizer.compress_meaning(stored)
        for budget in BYTES:
            if budget > summarizer.cfg.side_channel: continue
            packed = [pack_facts(some, budget) for some in facts]
            used = sum(len(p) + 1 for p in packed) / len(packed) if budget else 0
            written = summarizer.decode(summaries, facts=packed if budget else None, do_sample=False)
            lines.append(rounded(dict(model=model, names=names, latents=kept, bits=bits, budget=budget,
                                      bytes=stored_bytes(summarizer.cfg, bits) * kept / 8 + used, fact_bytes=used, **scored(rows, written))))
            print(lines[-1], flush=True)
    return lines


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="mini", help="that reads facts (default: %(default)s)")
    p.add_argument("--alone", required=True, help="folder of a model that was trained alike, without facts")
    p.add_argument("--rows", type=int, default=200, help="held-out chats (default: %(default)s)")
    p.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    opts = p.parse_args()
    torch.set_num_threads(1)
    rows = chats(opts.rows, "test")
    sets = {"of the corpus": rows, "made up": [with_made_up_names([r], random.Random(r["id"]))[0] for r in rows]}
    models = dict(alone=Summarizer.from_pretrained(opts.alone), mini=Summarizer.from_pretrained(opts.model))
    lines = [line for model, s in models.items() for names, some in sets.items() for line in measured(model, names, s, some)]
    command = "python nbs/experiments/side_channel.py --alone build/alone/summarizer"
    write_json(opts.output, dict(command=command, rows=len(rows), lines=lines, environment=environment()))


if __name__ == "__main__": main()
