"""Which facts can be read off a text's eight vectors? A line of nbs/experiments/probe.json for each encoder.

    python nbs/experiments/probe.py                                    # the shipped encoder; four minutes on one core
    python nbs/experiments/probe.py --encoder build/mini/encoder       # another, of `make_mini encoder`

A small network of one hidden layer learns to name a fact (which day? which place?) from the vectors of a chat, another from those of its summary, on training
rows of the built-in corpus; told is how often it is right on rows that it has not seen. Rows with one fact of the kind only; the values are those of the corpus.
"""
import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from latent_summ.encode.backbones import load_encoder
from latent_summ.config import Config
from latent_summ.encode.embedder import embed_texts
from latent_summ.use.evaluate import rounded
from latent_summ.runtime import seed_everything, write_json
from latent_summ.data.sources import load_pairs
from latent_summ.train.run import environment

RESULTS = Path(__file__).resolve().parent / "probe.json"
TYPES = ("day", "place", "time", "amount")


def standardised(train:torch.Tensor, held_out:torch.Tensor) -> tuple:
    "Both, flattened, with mean zero and deviation one on the training rows."
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    return ((train - mean) / deviation).flatten(1), ((held_out - mean) / deviation).flatten(1)


def probe(x:torch.Tensor, y:torch.Tensor, held_out:torch.Tensor, wanted:torch.Tensor, epochs:int=6) -> float:
    "Share of held-out rows whose fact the network names."
    seed_everything(0)
    net = nn.Sequential(nn.Linear(x.shape[1], 512), nn.GELU(), nn.Linear(512, int(y.max()) + 1))
    adam = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(256):
            F.cross_entropy(net(x[at]), y[at]).backward()
            adam.step()
            adam.zero_grad()
    with torch.inference_mode(): return float((net(held_out).argmax(1) == wanted).float().mean())


def named(rows:list, kind:str) -> list:
    "The one fact of a kind in each row, or None."
    found = [[f["text"] for f in r["facts"] if f["type"] == kind] for r in rows]
    return [f[0] if len(f) == 1 else None for f in found]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--encoder", default="mini", help="mini, or a folder")
    p.add_argument("--name", help="of the encoder in the file (default: its path)")
    p.add_argument("--rows", type=int, default=40_000, help="training rows (default: %(default)s)")
    p.add_argument("--held-out", type=int, default=2000, help="default: %(default)s")
    p.add_argument("--output", type=Path, default=RESULTS)
    opts = p.parse_args()
    torch.set_num_threads(1)
    cfg, start, told = Config.preset("mini").override(modernbert_model=opts.encoder, messenger_rows=opts.rows, max_eval_samples=opts.held_out), time.monotonic(), {}
    encoder, parts = load_encoder(cfg), [list(load_pairs(cfg, split, n)) for split, n in (("train", opts.rows), ("validation", opts.held_out))]
    for of in ("dialogue", "summary"):
        x, held_out = standardised(*(torch.from_numpy(embed_texts(cfg, encoder, [r[of] for r in rows])).float() for rows in parts))
        for kind in TYPES:
            values, wanted = (named(rows, kind) for rows in parts)
            numbers = {v: i for i, v in enumerate(sorted({v for v in values if v}))}
            a, b = ([i for i, v in enumerate(some) if v in numbers] for some in (values, wanted))
            y, right = (torch.tensor([numbers[some[i]] for i in at]) for some, at in ((values, a), (wanted, b)))
            common, = Counter(right.tolist()).most_common(1)
            told.setdefault(kind, dict(values=len(numbers), rows=len(a), held_out=len(b), most_common=common[1] / len(b)))[of] = probe(x[a], y, held_out[b], right)
            print(of, kind, told[kind][of], flush=True)
    found = dict(encoder=opts.name or opts.encoder, told=told, seconds=round(time.monotonic() - start), environment=environment(),
                 command=f"python nbs/experiments/probe.py --rows {opts.rows}"
                         + f" --encoder {opts.encoder}" * (opts.encoder != "mini") + f" --name {opts.name!r}" * bool(opts.name))
    known = json.loads(opts.output.read_text()) if opts.output.exists() else []
    write_json(opts.output, [k for k in known if k["encoder"] != found["encoder"]] + [rounded(found)])


if __name__ == "__main__": main()
