"""A short round of fuzz.py: everything that broke something before, then a few hundred new inputs for each target. `make fuzz` is the long one."""
import json
import os
import random
from pathlib import Path

import fuzz
import pytest

SEED = int(os.environ.get("LATENT_SUMM_FUZZ_SEED", 2026))  # always the same here: a new seed is for those who look for new breaks
ROUND = {"ConfigFile": 200, "Manifest": 150, "PartialManifest": 150, "Offsets": 80, "JsonlShardFile": 80, "ArrowShardFile": 80, "TrustedJsonl": 60, "TrustedArrow": 60, "Rows": 150,
         "SourceFile": 8, "Checkpoint": 200, "Export": 150, "Latents": 200, "Events": 20, "EventsReport": 200, "Predictions": 200, "CommandLine": 15}


def test_every_target_has_its_round(): assert ROUND.keys() == fuzz.TARGETS.keys()


@pytest.mark.parametrize("name", ROUND)
def test_nothing_but_errors_of_ours(name):
    print(f"LATENT_SUMM_FUZZ_SEED={SEED}")
    found = fuzz.attack(name, ROUND[name], SEED)
    assert not found["broken"], "\n".join(f"{what}: {data[:400]}" for what, data in found["broken"])


class Faulty(fuzz.Target):
    def make(self): return [b"abc"]
    def bend(self, draw): return draw.choice((b"good", b"hang", b"bad", b"huge", b"die"))
    def read(self, data):
        if data == b"bad": raise KeyError("x")
        if data == b"hang":
            while True: pass
        if data == b"huge": bytearray(fuzz.MEMORY * 2)
        if data == b"die": os.abort()


@pytest.mark.parametrize(("only", "said"), [(b"good", None), (b"bad", "KeyError"), (b"hang", "no answer"), (b"huge", "MemoryError"), (b"die", "ended with status -6")])
def test_it_finds_each_kind_of_break(only, said, monkeypatch):
    monkeypatch.setitem(fuzz.TARGETS, "Faulty", type("Faulty", (Faulty,), dict(bend=lambda self, draw: only)))
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    found = fuzz.attack("Faulty", 2, 0)
    assert (not found["broken"]) if said is None else said in found["broken"][0][0] and bytes.fromhex(found["broken"][0][1]) == only, found


def test_changes_are_repeatable_and_change_something():
    a, b = ([fuzz.bent(b"0123456789" * 5, random.Random(7), b"other") for _ in range(3)] for _ in range(2))
    trees = [fuzz.restructured(dict(a=[1, dict(b=2)]), random.Random(i)) for i in range(50)]
    assert a == b and a[0] != b"0123456789" * 5 and len({json.dumps(t) for t in trees}) > 20
    assert Path(fuzz.CORPUS).is_dir()
