"""A checkpoint, an export and a report are complete or invisible.

Attack: SIGKILL at every write point (each file made durable, each rename before and after, each removal) of a training that saves after every second step,
with the writer in the loop and on its thread; of exporting a model over an older one; and of writing a report. Afterwards every file under a final name
must be whole, and the continued training must reach the same weights. A file that is cut off anywhere is not accepted as a checkpoint; (elsewhere) a
damaged newest one is skipped and named.
"""
import json
import shutil

import pytest
import torch
from faults import killed_everywhere, same
from toys import state, train

from latent_summ.train.checkpoint import Saver, load_checkpoint, save_checkpoint
from latent_summ.config import Config
from latent_summ.use.report import write_report
from latent_summ.runtime import CheckpointError
from latent_summ.use.share import export_model, read_export
from latent_summ.train.trainer import step_files

ALSO = ["test_training.py::test_a_damaged_newest_checkpoint_is_passed_over_and_named"]


@pytest.mark.parametrize("background", [False, True])
def test_killed_at_every_write_point_of_a_training(background, tmp_path, attacks):
    straight = state(train(tmp_path / "straight"))
    def make(n):
        saver = Saver(background)
        train(tmp_path / str(n), saver=saver)
        saver.close()
    count = 0
    for n in killed_everywhere(make):
        for path in step_files(tmp_path / str(n)): load_checkpoint(path)  # whole, each of them
        assert same(state(train(tmp_path / str(n), resume=True)), straight), n
        count += 1
    assert count > 20
    attacks(count)


def test_cut_off_anywhere_it_is_not_a_checkpoint(tmp_path, draw, attacks):
    whole = save_checkpoint(tmp_path / "a.pt", dict(x=torch.arange(100)), dict(step=1)).read_bytes()
    sizes = sorted({0, 1, 4, len(whole) - 1, *draw.sample(range(len(whole)), 150)})
    for size in sizes:
        (tmp_path / "a.pt").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="damaged"): load_checkpoint(tmp_path / "a.pt")
    attacks(len(sizes))


class Part(torch.nn.Module):
    def __init__(self, value): super().__init__(); self.w = torch.nn.Parameter(torch.full((8,), value))


META = dict(stage="x", backbones=dict(encoder=dict(name="mini", revision="1", tokenizer="2")), config=Config.preset("mini").__dict__)


def test_killed_at_every_write_point_of_an_export(tmp_path, attacks):
    "Over an older export: what can be read is the old one or the new one; a mixture is refused."
    export_model(tmp_path / "old", Part(1.0), META)
    def make(n):
        export_model(tmp_path / str(n), Part(2.0), META, dict(rouge1=1.0))
    for n in range(1, 20): shutil.copytree(tmp_path / "old", tmp_path / str(n))
    seen, count = set(), 0
    for n in killed_everywhere(make):
        try: seen.add(float(read_export(tmp_path / str(n))[0]["model"]["w"][0]))
        except CheckpointError as e: assert "is damaged" in str(e)
        for p in (tmp_path / str(n)).glob("*.json"): json.loads(p.read_text())
        count += 1
    assert seen == {1.0, 2.0}
    attacks(count)


def test_killed_at_every_write_point_of_a_report(tmp_path, attacks):
    rows = [dict(id="1", dialogue="Ann: hi", summary="Ann greets.", kind="x")]
    report = dict(rouge1=1.0, rouge2=1.0, rougeL=1.0, fact_recall=0.5, rows=dict(evaluated=1), seconds={}, intervals={}, baselines={})
    events = [dict(time=1.0, event="step", stage="toy", step=i, steps=3, epoch=0, lr=0.1, loss=1.0, grad_norm=1.0, memory_mb=1, rows_per_s=1.0, tokens_per_s=0.0) for i in range(3)]
    def make(n):
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
        write_report(tmp_path / str(n), report, rows, ["Ann greets."])
    count = 0
    for n in killed_everywhere(make):
        for p in (tmp_path / str(n)).iterdir():
            if p.name.endswith(".tmp"): continue
            if p.suffix == ".png": assert p.read_bytes().endswith(b"IEND\xaeB`\x82")
            elif p.suffix == ".json": json.loads(p.read_text())
            else: [json.loads(line) for line in p.read_text().splitlines()]
        count += 1
    assert count > 5
    attacks(count)
