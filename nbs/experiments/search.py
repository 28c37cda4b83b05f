"""How exact and how quick is a search in a file of latents? Writes nbs/experiments/search.json.

    python nbs/experiments/search.py    # two minutes on one core; with faiss installed also an index (pip install 'latent_summ[faiss]')

Held-out built-in chats and, to have many, chats halfway between two of them. A query is a chat with its last line left out; what is looked for is that chat.
"""
import argparse
import json
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F

from latent_summ.data.messenger import chats
from latent_summ.runtime import write_json
from latent_summ.train.run import environment
from latent_summ.use.evaluate import rounded
from latent_summ.use.inference import Summarizer
from latent_summ.use.search import latent_index, search_latents

RESULTS = Path(__file__).resolve().parent / "search.json"


def without_end(dialogue:str) -> str:
    "A chat without its last line."
    return dialogue.rsplit("\n", 1)[0]


def many(latents:torch.Tensor, rows:int) -> torch.Tensor: # (rows, latent_seq_len, latent_dim)
    "The latents first, then points between two of them."
    chance = torch.Generator().manual_seed(0)
    pairs = torch.randint(len(latents), (rows - len(latents), 2), generator=chance)
    between = F.normalize(latents[pairs[:, 0]] + latents[pairs[:, 1]], dim=-1)
    return torch.cat([latents, between])


def looked_up(file, queries:torch.Tensor, index:bool, exact:list) -> tuple: # (figures, rows found)
    "Whether the right chat comes first, what the exact search finds too, and the seconds."
    start = time.perf_counter()
    found = [[h.row for h in hits] for hits in search_latents(queries, file, 5, index)]
    seconds = time.perf_counter() - start
    first = sum(rows[0] == i for i, rows in enumerate(found)) / len(found)
    same = sum(len(set(a) & set(b)) for a, b in zip(found, exact or found)) / (5 * len(found))
    return dict(right_first=first, of_the_exact_five=same, ms_a_query=1000 * seconds / len(found)), found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--chats", type=int, default=2000, help="real held-out chats (default: %(default)s)")
    p.add_argument("--rows", type=int, default=20000, help="rows of the file (default: %(default)s)")
    p.add_argument("--queries", type=int, default=500, help="(default: %(default)s)")
    p.add_argument("--output", type=Path, default=RESULTS)
    opts = p.parse_args()
    torch.set_num_threads(1)
    summarizer = Summarizer.from_pretrained("mini")
    dialogues = [r["dialogue"] for r in chats(opts.chats, "test")]
    latents = summarizer.encode(dialogues)
    queries = summarizer.encode([without_end(d) for d in dialogues[:opts.queries]])
    ways = {}
    with tempfile.TemporaryDirectory() as folder:
        file = summarizer.open_latents(summarizer.save_latents(Path(folder)/"many.latents", many(latents, opts.rows)))
        ways["exact"], exact = looked_up(file, queries, False, [])
        if find_spec("faiss"):
            start = time.perf_counter()
            latent_index(file)
            made = time.perf_counter() - start
            ways["index"], _ = looked_up(file, queries, True, exact)
            ways["index"]["seconds_to_make"] = made
    report = dict(command="python nbs/experiments/search.py", chats=opts.chats, rows=opts.rows, queries=opts.queries, ways=ways, environment=environment())
    write_json(opts.output, rounded(report))
    print(json.dumps(rounded(ways)))


if __name__ == "__main__": main()
