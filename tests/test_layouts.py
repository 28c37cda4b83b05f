"""What version 0.1.0 wrote is read by this one: caches, and a run that was stopped in the middle of a stage."""
import json
import shutil
from pathlib import Path

import pytest
import torch

from latent_summ.config import Config
from latent_summ.train.stages import run_pipeline

OLD = Path(__file__).parent / "v010"


@pytest.fixture
def old_run(tmp_path, monkeypatch) -> Config:
    "A copy of the old run and its cache, with its own settings."
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Config.load("run/config.json")


def test_a_run_of_the_old_layout_resumes_in_the_middle_of_a_stage(old_run):
    "It goes on after step 4, embeds nothing, and ends with the model that 0.1.0 ended with."
    heard = []
    run_pipeline(old_run, resume=True, listeners=(heard.append,))
    begun = [(e["stage"], e["step"]) for e in heard if e["event"] == "stage_start"]
    assert begun == [("finetune_middle", 4), ("finetune_adapter", 0)]
    assert sorted(p.name for p in Path("cache").iterdir()) == sorted(p.name for p in (OLD / "cache").iterdir())
    model = torch.load("run/checkpoints/best_model.pt", weights_only=True)["tensors"]["model"]
    expected = json.loads((OLD / "expected.json").read_text())
    assert {k for k, v in model.items() if v.numel()} == set(expected)
    for name, (mean, size) in expected.items():
        assert model[name].double().mean().item() == pytest.approx(mean, abs=1e-4), name
        assert model[name].double().abs().mean().item() == pytest.approx(size, abs=1e-4), name


def test_a_cache_of_the_old_layout_is_used_as_it_is(old_run, monkeypatch):
    "With run_preprocessing off nothing may be embedded: the old cache must do."
    run_pipeline(old_run.override(run_preprocessing=False, run_dir="other"))
    assert (Path("other") / "checkpoints/best_model.pt").exists()
