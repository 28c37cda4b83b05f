"""Memory stays flat over thousands of calls of any length.

Attack: 400 calls of `summarize` with one to three texts of 1 to 60 words, in bf16 and in fp32, each in its own process, which may grow by 100 MB
from the moment the model is loaded (with torch's own bounds, bf16 grows by 608), and by 10 after the first 120 calls (by 300). And (elsewhere)
trainings of 2, 10 and 50 epochs.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ALSO = ["test_world.py::test_the_kernel_caches_are_bounded_for_every_caller"]
SCRIPT = Path(__file__).resolve().parent.parent / "memory.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what is resident")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_four_hundred_calls(precision, attacks):
    env = {k: v for k, v in os.environ.items() if not k.endswith("_CACHE_CAPACITY")} | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(SCRIPT.parent.parent))
    words = [sys.executable, str(SCRIPT), "--calls", "400", "--precision", precision, "--words", "60"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    found = json.loads(done.stdout)
    assert found["grown"] < 100, found
    assert found["along"]["400"] - found["along"]["120"] < 10, found
    attacks(found["calls"])
