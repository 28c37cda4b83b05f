"""Can the mini decoder be taught who did what? A line of nbs/experiments/who_did_what.json for each kind of lesson.

    python nbs/experiments/who_did_what.py swapped              # ten minutes on one core; --list tells the kinds
    python nbs/experiments/who_did_what.py none --steps 0       # the shipped decoder, as it is
    python nbs/experiments/who_did_what.py none --steps 0 --decoder build/mini/decoder     # another one

The decoder reads a chat and its summary, as in its second lesson, and the same summary with a mistake; the right one must be the likelier one, by the
logistic loss of the difference in nats. Or it reads a chat and all its wordings, as in its third lesson. Judged by the summaries it then writes of held-out
chats that it reads (greedy): the ceiling of the latents; and by where in a summary it is unsure: nats for each of the corpus's wordings of a chat, beyond
what it takes to tell which wording it is.
"""
import argparse
import json
import math
import random
import re
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from latent_summ.encode.backbones import MINI, load_decoder
from latent_summ.config import Config
from latent_summ.use.evaluate import evaluate_predictions, rounded
from latent_summ.use.ladder import read_text
from latent_summ.use.facts import role_recall
from latent_summ.mini_lessons import FULLEST, SUMMARY_CUE, batches, decoder_exercises, decoder_step, fan, fan_nats, fit, pad, wording_exercises, wording_step
from latent_summ.data.messenger import chats, versions
from latent_summ.runtime import seed_everything, write_json
from latent_summ.data.sources import load_pairs
from latent_summ.train.run import environment

RESULTS = Path(__file__).resolve().parent / "who_did_what.json"
KINDS = { # of lessons: what they are
    "none": "no mistakes: the lesson without its question",
    "swapped": "two people in each other's place",
    "doubled": "half swapped, half with one of the two in both places",
    "begun": "half swapped, half swapped and broken off before the second of the two is named",
    "wordings": "no mistakes: all wordings of a chat behind it, each as heavy as the others",
    "fullest": "no mistakes: all wordings, half of the weight on the one with most facts",
}
WEIGHT = dict(wordings=0.0, fullest=FULLEST) # of the fullest wording
RANK_WEIGHT = 0.1 # of the logistic loss, beside the cross-entropy of a token of the summary


def mistaken(row:dict, kind:str, rng:random.Random):
    "(The summary or its beginning, the same with a mistake); None where there are not two people, or where they can be swapped."
    text, people = row["summary"], dict.fromkeys(f["text"] for f in row["facts"] if f["type"] == "person")
    people = [p for p in people if re.search(rf"\b{p}\b", text)]
    if len(people) < 2 or kind == "none": return None
    a, b = rng.sample(people, 2)
    def told(text, instead): return re.sub(rf"\b({a}|{b})\b", lambda m: instead.get(m[0], m[0]), text)
    swap, named = {a: b, b: a}, list(re.finditer(rf"\b({a}|{b})\b", text))
    kept, facts, _ = role_recall(told(text, swap), row)
    if kept == facts: return None
    if kind == "swapped" or rng.random() < 0.5: return text, told(text, swap)
    if kind == "doubled": return text, told(text, {a: b})
    start = text[:next(m for m in named if m[0] != named[0][0]).start()].rstrip()
    return start, told(start, swap)


def exercises(tok, kind:str, seed:int, batch_size:int=24):
    "Endless batches `(kind, rows)`; three of four are chats: (chat and cue, summary, mistake or None), a mistake is (tokens compared, ids)."
    n, eos, cue = 4096, [tok.eos_token_id], SUMMARY_CUE.rstrip()
    def ids(items): return tok(items, add_special_tokens=False)["input_ids"]
    def pairs(k):
        rows, rng = chats(n, seed=seed + 2, start=k * n), random.Random(seed + k)
        found = [mistaken(r, kind, rng) for r in rows]
        right, wrong = (ids([" " + f[i] if f else "" for f in found]) for i in (0, 1))
        ends = [eos if f and f[0] == r["summary"] else [] for f, r in zip(found, rows)]
        made = [(len(a + e), b + e) if f else None for f, a, b, e in zip(found, right, wrong, ends)]
        return list(zip(ids([r["dialogue"] + cue for r in rows]), [r + eos for r in ids([" " + r["summary"] for r in rows])], made))
    chat_pairs, rng = batches(pairs, lambda r: len(r[0]) + len(r[1]), batch_size, random.Random(seed)), random.Random(seed)
    others = decoder_exercises(tok, seed + 10, 2 * batch_size, shares=(.25, .75, 0))
    while True: yield ("read", next(chat_pairs)) if rng.random() < 0.75 else next(others)


def lesson_step(decoder, tok, seed:int):
    "The step function."
    other = decoder_step(decoder, tok, seed)
    def step(batch):
        kind, rows = batch
        if kind != "read": return other(batch)
        n, told = len(rows), [i for i, r in enumerate(rows) if r[2]]
        both = [r[:2] for r in rows] + [(rows[i][0], rows[i][2][1]) for i in told]
        ids = pad([[2] + chat + summary for chat, summary in both], 0)
        labels, begins = ids[:, 1:], torch.tensor([len(chat) for chat, _ in both])[:, None]
        place = torch.arange(labels.shape[1]) - begins # number of the summary's token
        summary = (labels != 0) & (place >= 0)
        hidden = decoder.model(inputs_embeds=decoder.get_input_embeddings()(ids)).last_hidden_state[:, :-1]
        nats = torch.zeros(labels.shape).masked_scatter(summary, F.cross_entropy(decoder.lm_head(hidden[summary]).float(), labels[summary], reduction="none"))
        loss = nats[:n].sum() / summary[:n].sum()
        if not told: return loss, dict(read=loss.item())
        right, wrong = (nats[told] * (place[told] < torch.tensor([rows[i][2][0] for i in told])[:, None])).sum(1), nats[n:].sum(1)
        return loss + RANK_WEIGHT * F.softplus(right - wrong).mean(), dict(read=loss.item(), told_apart=float((wrong > right).float().mean()))
    return step


def teach(model, tok, kind:str, steps:int, seed:int, log:list):
    "Teach the decoder further on."
    if kind in WEIGHT: step, exercise = wording_step(model, tok, seed, WEIGHT[kind]), wording_exercises(tok, seed)
    else: step, exercise = lesson_step(model, tok, seed), exercises(tok, kind, seed)
    fit(model, step, exercise, steps, 8e-4, 2e-3, log, kind)


def judge(decoder, rows:int) -> dict:
    "Scores of what the decoder writes after reading held-out chats."
    cfg = Config.preset("mini")
    pairs = list(load_pairs(cfg, "test", rows))
    nats, texts = read_text(SimpleNamespace(cfg=cfg, decoder=decoder, device=torch.device("cpu")), pairs)
    report = evaluate_predictions(pairs, texts)
    return {k: report[k] for k in ("rouge1", "rouge2", "rougeL", "fact_recall", "role_recall", "facts", "exact_match")} | dict(rows=rows, nats_per_summary=nats / rows)


@torch.inference_mode()
def unsure(decoder, fullest:float, rows:int=400) -> dict:
    "Nats for a summary, by place, beyond those that tell which of the wordings it is (drawn as the lesson weighs them: `fullest`)."
    tok, lost, told = decoder.tokenizer, dict.fromkeys(("who begins", "the three words after", "all else"), 0.0), 0
    def ids(items): return tok(items, add_special_tokens=False)["input_ids"]
    found = [v[0] for i in range(rows) if (v := versions(i, "validation"))]
    pairs = zip(ids([v["dialogue"] + SUMMARY_CUE.rstrip() for v in found]), ([w + [decoder.eos_id] for w in ids([" " + s for s in v["summaries"]])] for v in found))
    pairs = sorted(pairs, key=lambda pair: len(pair[0]))
    for at in range(0, len(pairs), 24):
        chats_read, wordings = zip(*pairs[at:at + 24])
        f = fan([decoder.bos_ids + c for c in chats_read], wordings, fullest)
        nats = iter(fan_nats(decoder.model, decoder.embed(f["ids"]), f).tolist())
        for ws in wordings:
            share = [fullest * (w is ws[0]) + (1 - fullest) / len(ws) for w in ws]
            for w, its in zip(ws, share):
                told += its
                for i in range(len(w)):
                    before, after = (sum(p for v, p in zip(ws, share) if v[:n] == w[:n]) for n in (i, i + 1))
                    lost["who begins" if i == 0 else "the three words after" if i < 4 else "all else"] += its * (next(nats) + math.log(after / before))
    return {place: n / told for place, n in lost.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kinds", nargs="*", choices=[[], *KINDS], help="kinds of lessons")
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--rows", type=int, default=500, help="held-out chats (default: %(default)s)")
    p.add_argument("--list", action="store_true", help="the kinds")
    p.add_argument("--decoder", default="mini", help="mini, or a folder")
    p.add_argument("--name", help="of the decoder in the file (default: its path)")
    p.add_argument("--output", type=Path, default=RESULTS)
    opts = p.parse_args()
    if opts.list or not opts.kinds:
        for kind, what in KINDS.items(): print(f"{kind:10} {what}")
    for kind in opts.kinds:
        seed_everything(opts.seed)
        torch.set_num_threads(1)
        start, decoder, log = time.monotonic(), load_decoder(Config.preset("mini").override(gpt2_model=opts.decoder)), []
        model = decoder.model.float().requires_grad_(True)
        model.config._attn_implementation = "sdpa" if kind in WEIGHT else "eager"
        if opts.steps: teach(model, decoder.tokenizer, kind, opts.steps, opts.seed, log)
        model.config._attn_implementation = "sdpa"
        folder = MINI / "decoder" if opts.decoder == "mini" else Path(opts.decoder)
        lessons = [lesson["name"] for lesson in json.loads((folder / "training.json").read_text())["lessons"]]
        had = FULLEST if "wordings" in lessons else 0.0
        found = dict(decoder=opts.name or opts.decoder, mistakes=kind, what=KINDS[kind], steps=opts.steps, seed=opts.seed, seconds=round(time.monotonic() - start),
                     log=log[-1:], **judge(decoder, opts.rows), unsure=unsure(decoder, WEIGHT.get(kind, had) if opts.steps else had), environment=environment(),
                     command=f"python nbs/experiments/who_did_what.py {kind} --steps {opts.steps} --seed {opts.seed}" + f" --decoder {opts.decoder}" * (opts.decoder != "mini"))
        print(json.dumps(rounded(found)), flush=True)
        known = json.loads(opts.output.read_text()) if opts.output.exists() else []
        write_json(opts.output, [k for k in known if (k["decoder"], k["command"]) != (found["decoder"], found["command"])] + [rounded(found)])


if __name__ == "__main__": main()
