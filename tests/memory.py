"""How much memory a process grows by over many calls of `Summarizer.summarize` with texts of varied lengths, on a CPU.

    python tests/memory.py [--calls 2000] [--precision bf16|fp32] [--words 120]

Prints JSON: resident memory in MB after loading, after the first call, and after every tenth of the calls.
"""
import argparse
import json
import random
from pathlib import Path

from latent_summ import Summarizer
from latent_summ.data.messenger import chats


def resident_mb() -> float:
    "Resident memory of this process, in MB of 10^6 bytes (Linux)."
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1.024e-3


def some_texts(words:list, longest:int, draw:random.Random) -> list: # of 1 to 3 strings
    "Texts of 1 to `longest` words, cut out of `words`."
    texts = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        length = draw.randint(1, longest)
        start = draw.randrange(len(words) - length)
        texts.append(" ".join(words[start:start + length]))
    return texts


def measure(calls:int, precision:str, longest:int) -> dict:
    "Resident memory along the calls."
    summarizer = Summarizer.from_pretrained("mini", device="cpu", use_bf16=precision == "bf16", max_generation_length=2)
    words = " ".join(row["dialogue"] for row in chats(60, split="test")).split()
    draw = random.Random(0)
    loaded = resident_mb()
    along = {}
    for call in range(1, calls + 1):
        summarizer.summarize(some_texts(words, longest, draw))
        if call == 1 or call % max(calls // 10, 1) == 0: along[call] = round(resident_mb())
    return dict(calls=calls, precision=precision, loaded=round(loaded), along=along, grown=round(resident_mb() - loaded))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--words", type=int, default=120)
    args = parser.parse_args()
    print(json.dumps(measure(args.calls, args.precision, args.words)))
