"""The promises of this package, attacked: one file for each, by its number.

A file's docstring is the promise (first line) and the attack. `ALSO` names the attacks on the same promise that stand elsewhere, with the part of the
package they need; they run there in `make test`, and `make promises` (table.py) runs them with these and counts all of them. That way nothing runs twice,
and nobody has to move a test to have it counted. A name in `ALSO` that no longer exists fails (test_table.py).

A test that makes many attempts says so with the fixture `attacks`: `attacks(17)`. Random draws come from a printed seed; LATENT_SUMM_KILL_SEED repeats them.
"""
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from faults import SEED


@pytest.fixture
def attacks(record_property):
    "Count attempts beyond the test itself."
    return lambda n: record_property("attacks", n)


@pytest.fixture
def draw(request):
    "Random draws of this test alone."
    print(f"LATENT_SUMM_KILL_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")
