"""How many facts arrive when a chat comes otherwise than in the built-in corpus? Writes nbs/experiments/sturdiness.json.

    python nbs/experiments/sturdiness.py --name shipped
    python nbs/experiments/sturdiness.py --name "shipped, latents alone" --side-channel 0
    python nbs/experiments/sturdiness.py --name "before" --model FOLDER

The same held-out chats each time: as they are; without their first line, where it says nothing that matters; on one line; with made-up names for all
who speak; and all three at once.
"""
import argparse
import json
import random
from pathlib import Path

from latent_summ.data.messenger import chats
from latent_summ.data.varied import on_one_line, with_made_up_names, without_first_line
from latent_summ.runtime import write_json
from latent_summ.train.run import environment
from latent_summ.use.evaluate import rounded
from latent_summ.use.facts import fact_recall, role_recall
from latent_summ.use.inference import Summarizer

RESULTS = Path(__file__).resolve().parent / "sturdiness.json"


def named(row:dict) -> dict: return with_made_up_names([row], random.Random(f"sturdiness {row['id']}"))[0]


WAYS = {
    "as they are": lambda row: row,
    "without the first line": without_first_line,
    "on one line": on_one_line,
    "made-up names": named,
    "all three": lambda row: on_one_line(named(without_first_line(row))),
}


def measured(summarizer, rows:list) -> dict:
    "Shares of the facts, and of the facts in their role."
    texts = summarizer.summarize([r["dialogue"] for r in rows])
    facts = [fact_recall(t, r["facts"]) for t, r in zip(texts, rows)]
    roles = [role_recall(t, r) for t, r in zip(texts, rows)]
    return dict(rows=len(rows), facts=sum(f[0] for f in facts) / sum(f[1] for f in facts),
                roles=sum(f[0] for f in roles) / sum(f[1] for f in roles))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="mini", help="folder of a run or of an exported model (default: the one in the package)")
    p.add_argument("--name", default="shipped", help="of the entry in the results (default: %(default)s)")
    p.add_argument("--rows", type=int, default=500, help="held-out chats (default: %(default)s)")
    p.add_argument("--side-channel", type=int, help="bytes of facts that are read beside the latents (default: as many as the model was taught to read)")
    opts = p.parse_args()
    summarizer = Summarizer.from_pretrained(opts.model, **({} if opts.side_channel is None else dict(side_channel=opts.side_channel)))
    rows = chats(opts.rows, "test")
    more = "" if opts.model == "mini" else " --model FOLDER"
    if opts.side_channel is not None: more += f" --side-channel {opts.side_channel}"
    command = f"python nbs/experiments/sturdiness.py --name {opts.name!r} --rows {opts.rows}{more}"
    found = dict(command=command, side_channel=summarizer.cfg.side_channel, environment=environment())
    found["ways"] = {}
    for name, way in WAYS.items():
        found["ways"][name] = measured(summarizer, [way(row) for row in rows])
        print(name, found["ways"][name], flush=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, known | {opts.name: rounded(found)})


if __name__ == "__main__": main()
