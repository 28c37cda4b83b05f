"""Slots that look words up: another way to make a prefix from windows, tried beside the package's adapter in a short lesson of stage 0.

    export LATENT_SUMM_DATA=folder LATENT_SUMM_BACKBONES=folder   # as for real_chats.py
    python nbs/experiments/word_codes.py --steps 300              # to nbs/experiments/word_codes.json
    python nbs/experiments/word_codes.py --steps 900 --epochs 3   # the same texts three times: an entry of its own

The package's adapter computes each slot's embedding, and the lesson asks which of the decoder's embeddings is nearest. Here each window computes a short code for each
of its slots instead; every word of the decoder has a code too, which begins as a fixed projection of its embedding and learns; the lesson is a softmax over words. A slot
is the embedding of the word whose code fits best. The lesson for comparison is `real_chats.py lessons`, with the same settings, rows and steps.
"""
import argparse
import json
import math
import time
from pathlib import Path

import real_chats
import torch
import torch.nn.functional as F
from torch import nn

from latent_summ.data.sources import load_pairs
from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.encode.embedder import embed_texts, pool
from latent_summ.encode.tokens import n_vectors, slot_ids
from latent_summ.model.compress import make_compression, normalize_latents
from latent_summ.runtime import seed_everything, write_json
from latent_summ.train.lesson import _with_states, lesson_rows
from latent_summ.train.optim import lr_factor
from latent_summ.train.run import environment
from latent_summ.train.teach import with_windows
from latent_summ.train.trainer import epoch_batches
from latent_summ.use.evaluate import rounded

CODE = 64 # numbers
OTHERS = 1024 # words drawn from the whole vocabulary at each step, beside the batch's own


class WordCodes(nn.Module):
    "Vectors of an encoder with windows to latents, and those to a code for each slot; and the codes of all words."
    def __init__(self, cfg, table):
        super().__init__()
        self.cfg = cfg
        self.compression = make_compression(cfg)
        size, slots = cfg.latent_dim // cfg.latent_windows, cfg.prefix_len // (cfg.latent_seq_len * cfg.latent_windows)
        self.apart = nn.Linear(cfg.latent_dim, cfg.latent_windows * size)
        nn.init.eye_(self.apart.weight)
        self.hidden = nn.Linear(size, 2 * cfg.gpt2_hidden_dim)
        self.out = nn.Linear(2 * cfg.gpt2_hidden_dim, slots * CODE)
        self.skip = nn.Linear(size, slots * CODE, bias=False)
        projection = torch.randn(table.shape[1], CODE) / CODE**0.5
        self.words = nn.Parameter(F.normalize(table, dim=-1) @ projection)
        self.bias = nn.Parameter(torch.zeros(len(table)))
        self.scale = nn.Parameter(torch.tensor(4.0))

    def codes(self, vectors): # (batch, vectors, encoder width) -> (batch, prefix_len, CODE)
        latents = normalize_latents(self.compression(vectors), True) * self.cfg.latent_dim**0.5
        windows = self.apart(latents).unflatten(-1, (self.cfg.latent_windows, -1))
        return (self.out(F.gelu(self.hidden(windows))) + self.skip(windows)).reshape(len(vectors), self.cfg.prefix_len, CODE)

    def fit(self, codes, words=slice(None)): # (..., CODE) -> (..., words): logits
        return self.scale * (codes @ self.words[words].T) + self.bias[words]


def lesson_loss(head:WordCodes, codes, labels): # codes (slots, CODE), labels (slots,) -> scalar
    "Cross-entropy over the batch's words and others; those drawn stand for all that were not."
    own = labels.unique()
    drawn = torch.randint(len(head.words), (OTHERS,))
    drawn = drawn[~torch.isin(drawn, own)]
    logits = head.fit(codes, torch.cat([own, drawn]))
    weight = math.log((len(head.words) - len(own)) / max(len(drawn), 1))
    logits = logits + F.pad(torch.full((len(drawn),), weight), (len(own), 0))
    return F.cross_entropy(logits, torch.searchsorted(own, labels))


def teach(cfg, encoder, decoder, head:WordCodes, steps:int, epochs:int=1) -> tuple: # (losses, seconds)
    "The lesson: windows, compression head and codes learn together, from states that are kept on disk."
    count = steps // epochs * cfg.teach_encoder_batch_size
    rows = _with_states(cfg, encoder, lesson_rows(cfg, encoder, decoder, "train", count), torch.device("cpu"))
    cuts = [cut for epoch in range(epochs) for cut in epoch_batches(rows, cfg.teach_encoder_batch_size, (cfg.seed, "codes", epoch))]
    encoder.queries.train()
    parameters = [p for p in (*encoder.queries.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=cfg.teach_encoder_learning_rate, weight_decay=cfg.weight_decay)
    losses, start = [], time.monotonic()
    for step, cut in enumerate(cuts):
        batch = rows.batch(cut)
        vectors = pool(**batch["inputs"], pooling="windows", n=n_vectors(cfg), queries=encoder.queries)
        keep = batch["labels"] != -100
        loss = lesson_loss(head, head.codes(vectors)[:, :keep.shape[1]][keep], batch["labels"][keep])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, cfg.max_grad_norm)
        optimizer.param_groups[0]["lr"] = cfg.teach_encoder_learning_rate * lr_factor(step, steps, cfg.warmup_steps)
        optimizer.step()
        losses.append(loss.item())
        if len(losses) % 50 == 0: print(f"step {len(losses)}, loss {sum(losses[-50:]) / 50:.3f}", flush=True)
    encoder.queries.eval()
    return losses, time.monotonic() - start


@torch.inference_mode()
def report(cfg, encoder, decoder, head:WordCodes, rows:int, read:int) -> dict:
    "How many tokens of validation texts are named, and how well the decoder as it comes expects the summaries after the named words."
    found = {}
    for kind in ("dialogue", "summary"):
        texts = [r[kind] for r in real_chats.validation("samsum", rows)]
        labels = torch.tensor(slot_ids(cfg, encoder, decoder, texts))
        labels[labels == decoder.newline_id] = -100
        vectors = torch.from_numpy(embed_texts(cfg, encoder, texts))
        right = [head.fit(head.codes(v[None])[0][wanted != -100]).argmax(-1) == wanted[wanted != -100] for v, wanted in zip(vectors, labels)]
        found[kind] = dict(tokens=sum(map(len, right)), named=float(torch.cat(right).float().mean()))
    pairs = real_chats.validation("samsum", read)
    vectors = torch.from_numpy(embed_texts(cfg, encoder, [r["dialogue"] for r in pairs]))
    slots = [decoder.embed(head.fit(head.codes(v[None])[0]).argmax(-1)) for v in vectors]
    return found | dict(nats=dict(slots=real_chats.nats_after(cfg, decoder, slots, pairs)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("build/real_chats"))
    p.add_argument("--rows", type=int, default=300, help="validation rows")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--epochs", type=int, default=1, help="how often each text is read; must divide the steps")
    opts = p.parse_args()
    if opts.steps % opts.epochs: p.error(f"--epochs {opts.epochs} does not divide --steps {opts.steps}.")
    cfg = real_chats.config("windows, longer", opts.out).override(device="cpu", teach_encoder_steps=opts.steps // opts.epochs)
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    seed_everything(cfg.seed)
    encoder = with_windows(encoder, cfg, decoder, [r["dialogue"] for r in load_pairs(cfg, "train", 16_384)])
    head = WordCodes(cfg, decoder.model.get_input_embeddings().weight.detach().float())
    losses, seconds = teach(cfg, encoder, decoder, head, opts.steps, opts.epochs)
    every = max(opts.steps // 6, 1)
    means = [sum(some) / len(some) for some in (losses[i:i + every] for i in range(0, len(losses), every))]
    words = f"--rows {opts.rows} --steps {opts.steps}" + f" --epochs {opts.epochs}" * (opts.epochs > 1)
    found = dict(command=f"python nbs/experiments/word_codes.py {words}", code=CODE, others=OTHERS, losses=means, seconds=seconds)
    found |= report(cfg, encoder, decoder, head, opts.rows, min(opts.rows, 64))
    path = Path(__file__).with_suffix(".json")
    known = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, known | {f"{opts.steps} steps": rounded(found | dict(environment=environment()))})
    print(rounded(found))


if __name__ == "__main__": main()
