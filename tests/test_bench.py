"""The scripts in benchmarks/: what they share works, their results say where they are from, and the runner finds them."""
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latent_summ.ui.bench import CLAIMS, found, performance_rows, performance_table, results, scripts

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/"benchmarks"))
import _common  # noqa: E402
import workload  # noqa: E402

FILES = sorted(p for p in (ROOT/"benchmarks/results").glob("*.json") if p.stem.split("-")[0] in scripts())


# --- what the scripts share -------------------------------------------------------------------------------------------

def test_ways_take_turns_after_one_warm_up():
    order = []
    runs = _common.turns(dict(a=lambda: order.append("a"), b=lambda: order.append("b")), 3)
    assert order == ["a", "b", *"ba", *"ab", *"ba"] and len(runs["a"]) == len(runs["b"]) == 3


def test_ratio_is_taken_pair_by_pair():
    theirs, ours = [(2.0, 8.0), (9.0, 9.0), (30.0, 3.0)], [(1.0, 1.0), (3.0, 1.0), (10.0, 1.0)]
    assert _common.ratio(theirs, ours) == dict(median=3.0, min=2.0, max=3.0, n=3)
    assert _common.ratio(theirs, ours, clock=1)["median"] == 8.0


def given(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["made.py", *words])
    before = torch.get_num_threads()
    try: return _common.parse(_common.options("made", ("quick", "slow"), quick=("quick",)))
    finally: torch.set_num_threads(before)


def test_quick_parts_unless_full_or_named(monkeypatch):
    assert given(monkeypatch).parts == ["quick"] and given(monkeypatch, "--full").parts == ["quick", "slow"]
    assert given(monkeypatch, "--parts", "slow").parts == ["slow"]
    with pytest.raises(SystemExit): given(monkeypatch, "--parts", "slwo")


def test_a_part_goes_into_the_file_with_its_command_and_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(_common, "limits", lambda device: dict(matmul_fp32_gflops=1.0))
    path, parts = tmp_path/"made.json", dict(quick=lambda o: dict(speed=1), slow=lambda o: dict(speed=2))
    for words in ((), ("--parts", "slow", "--full"), ("--parts", "quick", "--toy")):
        opts = given(monkeypatch, *words, "--output", str(path))
        if opts.toy: parts["quick"] = lambda o: dict(speed=9)
        _common.run_parts("benchmarks/made.py", opts, parts)
    out = json.loads(path.read_text())
    assert {k: v["speed"] for k, v in out.items()} == dict(quick=1, slow=2)  # the toy was not written
    assert out["slow"]["command"] == "python benchmarks/made.py --parts slow --full"
    assert set(out["quick"]) >= {"machine", "limits", "took_s"} and set(out["quick"]["machine"]) >= {"cpu", "cores", "threads", "versions", "commit", "date"}


def test_a_gpu_has_a_file_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(_common, "limits", lambda device: {})
    monkeypatch.setattr(_common, "machine", lambda device: {})
    monkeypatch.setattr(_common, "RESULTS", tmp_path)
    opts = SimpleNamespace(device="cuda", output=None, parts=["p"], words="--device cuda", toy=False)
    _common.run_parts("made.py", opts, dict(p=lambda o: dict(x=1)))
    assert [p.name for p in tmp_path.iterdir()] == ["made-cuda.json"]


def test_a_child_that_fails_is_named(tmp_path):
    (tmp_path/"poor.py").write_text("raise SystemExit(4)")
    with pytest.raises(SystemExit, match=r"poor.py 1 ended with status 4"): _common.child(tmp_path/"poor.py", 1)


# --- the work of the workload -----------------------------------------------------------------------------------------

def test_each_summary_ends_where_it_is_told_to(tmp_path):
    "With transformers' own loop, in another order than the lengths were given in."
    decoder, g = _common.gemma(toy=True), torch.Generator().manual_seed(0)
    latents = torch.nn.functional.normalize(torch.randn(4, 2, 8, generator=g), dim=-1)
    np.save(tmp_path/"latents.npy", latents.flatten(1).numpy())
    np.save(tmp_path/"lengths.npy", np.array([5, 2, 7, 0]))
    prompts = torch.randn(4, 3, 640, generator=g)
    model = SimpleNamespace(prefix=lambda x: prompts)
    ends = workload.Ends(model, decoder.model, 1, tmp_path)
    with torch.inference_mode():
        ids = decoder.model.generate(inputs_embeds=model.prefix(latents.flip(0) + 1e-3), attention_mask=torch.ones(4, 3, dtype=torch.long), max_new_tokens=12, do_sample=False,
                                     pad_token_id=0, eos_token_id=1)
    assert [row.index(1) for row in ids.tolist()] == [0, 7, 2, 5] and ends.written == 14


# --- the results that are committed -----------------------------------------------------------------------------------

def parts():
    return [(p.name, part, entry) for p in FILES for part, entry in json.loads(p.read_text()).items()]


def test_every_result_says_where_it_is_from():
    wrong, known = [], scripts()
    for file, part, entry in parts():
        command = re.fullmatch(r"python benchmarks/(\w+)\.py( .*)?", entry.get("command", "") if isinstance(entry, dict) else "")
        if not command or command[1] not in known: wrong.append(f"{file}: {part}: its command is {entry.get('command')!r}"); continue
        lacks = {"cpu", "cores", "commit"} - set(entry.get("machine", {}))
        if lacks: wrong.append(f"{file}: {part}: its machine lacks {sorted(lacks)}")
    assert parts() and not wrong, "\n".join(wrong)
    assert set(results()) >= {p.stem for p in FILES}


def test_claims_point_at_parts_that_scripts_have():
    "A figure that nobody measures would stand in the table as `not measured` for ever."
    wrong = []
    for script in {c.file.removesuffix("-cuda") for c in CLAIMS}:
        source = (ROOT/"benchmarks"/f"{script}.py").read_text()
        there = re.findall(r"\b(\w+)\s*=", source[source.rindex("PARTS = dict("):])
        wrong += [f"{c.file}: {c.path}" for c in CLAIMS if c.file.removesuffix("-cuda") == script and c.path.split("/")[0] not in there]
    assert not wrong, wrong


def test_table_shows_every_claim_with_its_file():
    rows, measured = performance_rows(), results()
    assert len(rows) == len(CLAIMS) and performance_table().count("\n") == len(CLAIMS) + 1
    for claim, row in zip(CLAIMS, rows):
        assert (row["figure"] == "not measured") == (found(claim, measured) is None)
        if row["figure"] != "not measured": assert row["command"].startswith("python benchmarks/") and row["machine"]
    assert sum(r["figure"] != "not measured" for r in rows if "GPU" not in r["what"]) >= 10


def test_make_bench_runs_the_scripts_and_nothing_else():
    p = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True)
    assert "*/_*" in p.stdout and "benchmarks/*.py" in p.stdout, p.stdout + p.stderr
    assert not any(name.startswith("_") for name in scripts())
