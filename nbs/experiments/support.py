"""How far can support be trusted, and what do candidates bring? Writes nbs/experiments/support.json.

    python nbs/experiments/support.py known                                  # built-in held-out chats, plain and in harder forms; three minutes on one core
    python nbs/experiments/support.py foreign --foreign samsum.validation.jsonl.xz    # chats of another kind: {"dialogue": ...} a line
    python nbs/experiments/support.py candidates                             # greedy, beams and candidates, with the seconds of each

A summary is marked when its support is below 0.5 or a word of it is marked. It is marked without cause when it is right all the same. Only figures are kept.
"""
import argparse
import json
import time
from pathlib import Path

import torch

from latent_summ.data.formats import look_at, numbered_rows
from latent_summ.data.messenger import chats
from latent_summ.runtime import write_json
from latent_summ.train.run import environment
from latent_summ.use.calibrate import aurc, calibration_error, harder_rows, is_right, reliability
from latent_summ.use.evaluate import rounded
from latent_summ.use.facts import fact_recall, role_recall
from latent_summ.use.inference import Summarizer
from latent_summ.use.support import LOW, PARTS, part_values

RESULTS = Path(__file__).resolve().parent / "support.json"
PHASES = ("known", "foreign", "candidates")


def is_marked(found) -> bool: return found.support is None or found.support < LOW or bool(found.unsupported)


def share(flags) -> float:
    "Share of the rows for which a flag is set."
    flags = list(flags)
    return sum(flags) / len(flags)


def judged(summarizer, rows:list) -> dict:
    "Marks and calibration on rows with references."
    found = summarizer.summarize([r["dialogue"] for r in rows], support=True)
    right = torch.tensor([is_right(f.summary, r) for f, r in zip(found, rows)])
    support = torch.tensor([f.support or 0.0 for f in found])
    marked = torch.tensor([is_marked(f) for f in found])
    worded = torch.tensor([bool(f.unsupported) for f in found])
    values = torch.tensor([part_values(f) for f in found])
    table = reliability(support, right)
    parts = {name: aurc(-values[:, i], right) for i, name in enumerate(PARTS)}
    bins = [dict(support=float(b.support), right=float(b.right), rows=int(b.rows)) for b in table.itertuples()]
    return dict(rows=len(rows), right=share(right.tolist()), marked=share(marked.tolist()), marked_without_cause=share((marked & right).tolist()),
                words_marked_without_cause=share((worded & right).tolist()), wrong_and_unmarked=share((~marked & ~right).tolist()), aurc=aurc(support, right),
                aurc_of_each_part=parts, aurc_of_chance=share((~right).tolist()), calibration_error=calibration_error(support, right), reliability=bins)


def known(opts, summarizer) -> dict:
    "Held-out chats of the built-in corpus, and the harder forms of some."
    rows = chats(opts.rows, "test")
    return dict(plain=judged(summarizer, rows), harder=judged(summarizer, harder_rows(rows[:opts.rows // 4], seed=1)))


def foreign(opts, summarizer) -> dict:
    "Texts of another kind: how many summaries go out without any mark."
    texts = [row["dialogue"] for _, row in numbered_rows(look_at(opts.foreign))][:opts.foreign_rows]
    found = summarizer.summarize(texts, support=True)
    alone = summarizer.support_of(summarizer.encode(texts), [f.summary for f in found])
    return dict(source=opts.foreign.name.split(".")[0], rows=len(texts), unmarked=share(not is_marked(f) for f in found),
                support_of_half_or_more=share(f.support is not None and f.support >= LOW for f in found), no_marked_word=share(not f.unsupported for f in found),
                latents_alone_half_or_more=share(f.support is not None and f.support >= LOW for f in alone),
                farther_than_99_percent=share((f.foreign or 0) >= 0.99 for f in found))


def scored(rows:list, written:list) -> dict:
    "Facts, facts in their role, and summaries with all of them."
    facts = [fact_recall(t, r["facts"]) for t, r in zip(written, rows)]
    roles = [role_recall(t, r) for t, r in zip(written, rows)]
    total = sum(n for _, n in facts)
    return dict(facts=sum(k for k, _ in facts) / total, roles=sum(k for k, _, _ in roles) / total, all_right=share(k == n for k, n, _ in roles))


def timed(write) -> tuple: # (texts, seconds)
    start = time.perf_counter()
    return write(), time.perf_counter() - start


def candidates(opts, summarizer) -> dict:
    "The same chats written by each way, from the same latents; the seconds are those of writing and choosing, with reading the chats."
    rows = chats(opts.choice_rows, "test")
    texts, out = [r["dialogue"] for r in rows], {}
    ways = {"greedy": lambda: summarizer.summarize(texts), "one sample": lambda: summarizer.summarize(texts, do_sample=True, seed=0)}
    ways |= {f"{n} candidates": lambda n=n: summarizer.summarize(texts, candidates=n, seed=0) for n in opts.candidates}
    ways |= {f"{n} candidates, temperature 1": lambda n=n: summarizer.summarize(texts, candidates=n, seed=0, temperature=1.0, top_p=1.0, top_k=0) for n in opts.candidates[-1:]}
    ways |= {f"{n} beams": lambda n=n: summarizer.summarize(texts, num_beams=n) for n in opts.beams}
    for name, write in ways.items():
        written, seconds = timed(write)
        out[name] = dict(scored(rows, written), seconds=seconds)
        print(name, out[name], flush=True)
    return dict(rows=len(rows), ways=out)


def command(opts, phase:str) -> str:
    "What was typed, for the results."
    words = ["python nbs/experiments/support.py", phase]
    if phase == "foreign": words += ["--foreign", opts.foreign.name]
    if opts.model != "mini": words += ["--model", opts.model]
    return " ".join(words)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("phases", nargs="+", choices=PHASES)
    p.add_argument("--model", default="mini", help="any calibrated model (default: %(default)s)")
    p.add_argument("--rows", type=int, default=1000, help="held-out chats (default: %(default)s)")
    p.add_argument("--foreign", type=Path, help="a file with rows of another kind")
    p.add_argument("--foreign-rows", type=int, help="at most so many of them")
    p.add_argument("--choice-rows", type=int, default=300, help="chats for the candidates (default: %(default)s)")
    p.add_argument("--candidates", type=int, nargs="+", default=[4, 8])
    p.add_argument("--beams", type=int, nargs="+", default=[4, 8])
    p.add_argument("--output", type=Path, default=RESULTS)
    opts = p.parse_args()
    if "foreign" in opts.phases and opts.foreign is None: p.error("foreign needs --foreign FILE")
    torch.set_num_threads(1)
    summarizer = Summarizer.from_pretrained(opts.model)
    for phase in opts.phases:
        start = time.monotonic()
        found = globals()[phase](opts, summarizer)
        line = dict(phase=phase, model=opts.model, **found, seconds_in_all=round(time.monotonic() - start), environment=environment(), command=command(opts, phase))
        lines = json.loads(opts.output.read_text()) if opts.output.exists() else []
        write_json(opts.output, [x for x in lines if (x["phase"], x["model"]) != (phase, opts.model)] + [rounded(line)])
        print(json.dumps({k: v for k, v in rounded(line).items() if k != "environment"}), flush=True)


if __name__ == "__main__": main()
