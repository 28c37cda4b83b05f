"""Search, bits per latent, audit, privacy and sweeps: what they say of cases whose answer is known, and what they refuse."""
import json
import sys
from pathlib import Path

import pytest
import torch

from latent_summ.config import Config, ConfigError
from latent_summ.data.sources import load_pairs
from latent_summ.runtime import CacheError, CheckpointError, DataError, ModelError
from latent_summ.ui.cli import status_of
from latent_summ.use.audit import audit_figure, audit_report, typed_audit
from latent_summ.use.bits import latent_bits, shared_work
from latent_summ.use.inference import Summarizer
from latent_summ.use.latents import LatentFile
from latent_summ.use.privacy import privacy_report
from latent_summ.use.search import index_path, search_file
from latent_summ.use.share import READ_BACK, _read_back
from latent_summ.use.sweep import grid_points, run_sweep

EXPERIMENTS = Path(__file__).resolve().parent.parent / "nbs" / "experiments"
NO_FACTS = [dict(id=str(i), dialogue=f"so {w} is", summary=f"{w}") for i, w in enumerate(("rain", "wind"))]


@pytest.fixture(scope="module")
def s() -> Summarizer: return Summarizer.from_pretrained("mini")


@pytest.fixture(scope="module")
def rows(s) -> list: return list(load_pairs(s.cfg, "test", 12))


def test_search_from_the_command_line(rows, tmp_path, capsys):
    chats, file = tmp_path / "chats.jsonl", tmp_path / "chats.latents"
    chats.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert status_of(["encode", "--model", "mini", "--input", str(chats), "--output", str(file), "--source-hash", "--latent-noise", "0.2"]) == 0
    held = LatentFile(file)
    assert held.noise == 0.2 and held.find(rows[3]["dialogue"]) == [3] and held.ids == [r["id"] for r in rows]
    capsys.readouterr()
    assert status_of(["search", "--model", "mini", rows[3]["dialogue"], str(file), "--top", "2", "--ids"]) == 0
    first, _ = capsys.readouterr().out.splitlines()
    assert first.split()[1] == rows[3]["id"]


def test_an_index_finds_the_same_and_is_not_taken_for_another(s, rows, tmp_path, capsys):
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'latent_summ[faiss]'")
    chats = [r["dialogue"] for r in rows]
    path = s.save_latents(tmp_path / "a.latents", s.encode(chats))
    exact, found = search_file(s, chats, path, 3), search_file(s, chats, path, 3, index=True)
    assert [[h.row for h in hits] for hits in found] == [[h.row for h in hits] for hits in exact]
    assert all(a.cosine == pytest.approx(b.cosine, abs=1e-5) for x, y in zip(exact, found) for a, b in zip(x, y))
    first = index_path(LatentFile(path))
    assert status_of(["search", "--model", "mini", chats[4], str(path), "--top", "1", "--ids", "--index"]) == 0
    assert capsys.readouterr().out.split()[1] == "4"
    s.save_latents(path, s.encode(chats[::-1])) # other latents under the same name
    assert search_file(s, chats[0], path, 1, index=True)[0].row == len(chats) - 1
    assert first.is_file() and index_path(LatentFile(path)) != first
    data = bytearray(index_path(LatentFile(path)).read_bytes())
    data[len(data) // 2] ^= 1
    index_path(LatentFile(path)).write_bytes(data)
    with pytest.raises(CacheError, match="is damaged: delete it"): search_file(s, chats[0], path, 1, index=True)
    with pytest.raises(DataError, match="no text to index"): search_file(s, chats[0], s.save_latents(tmp_path / "b", s.encode([])), index=True)


def test_an_index_without_faiss(s, rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    path = s.save_latents(tmp_path / "a", s.encode([rows[0]["dialogue"]]))
    with pytest.raises(ModelError, match=r"pip install 'latent_summ\[faiss\]', or search without an index"): search_file(s, "Anna: hi", path, index=True)


def test_noise_is_stored_only_when_it_is_asked_for(tmp_path):
    "A model that was trained with latent_noise stores plain latents."
    assert status_of(["encode", "--model", "mini", "Anna: hi", "--output", str(tmp_path / "a")]) == 0
    assert LatentFile(tmp_path / "a").noise == 0.0


def test_search_in_a_file_of_another_compressor(s, rows, tmp_path):
    path = s.save_latents(tmp_path / "a", s.encode([rows[0]["dialogue"]]))
    other = Summarizer.from_pretrained("mini")
    with torch.no_grad(): other.model.compression.out.bias[0] += 1
    with pytest.raises(CacheError, match="compression '"): search_file(other, "Anna: hi", path)


def test_texts_without_facts(s):
    "Stated: no facts, no waterfall; bits are those of other tokens."
    audit = typed_audit(s, NO_FACTS)
    assert audit.facts.empty and audit_report(audit)["worst"] == []
    with pytest.raises(DataError, match="hold no facts"): audit_figure(audit_report(audit))
    found = latent_bits(s, NO_FACTS)
    assert set(found.table.query("group == 'type'").label) == {"other", "end"} and shared_work(found)["effective"] >= 0


def test_the_audit_charges_the_right_rung(s, rows):
    "With a middle that gives every text another's latents nothing is lost at the rung oracle."
    right = typed_audit(s, rows).facts
    middle = s.model.middle.forward
    s.model.middle.forward = lambda latents: middle(latents).roll(1, 0)
    try: wrong = typed_audit(s, rows).facts
    finally: s.model.middle.forward = middle
    lost = wrong[(wrong.lost_at != "") & wrong.text & wrong.oracle]
    assert len(lost) > 2 * (right.lost_at != "").sum() and (lost.lost_at == "predicted").mean() > 0.8
    assert (wrong.oracle == right.oracle).all()


def test_too_few_texts_for_a_privacy_report(s, rows):
    with pytest.raises(DataError, match="10 rows and 50 known texts at least, got 12 and 3"): privacy_report(s, rows, ["a", "b", "c"])


def test_the_figures_in_card_and_help_are_those_of_the_experiment():
    report = json.loads((EXPERIMENTS / "privacy.json").read_text())
    assert _read_back(report) == READ_BACK
    told = Summarizer.save_latents.__doc__
    assert f"{READ_BACK['names']} % of the names and {READ_BACK['numbers']} % of the numbers" in told and f"read {READ_BACK['probe_names']} % of the names" in told


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    "Interrupted in its second run: the first is not trained again, the second is resumed."
    cfg = Config.preset("mini")
    calls = []
    def train(cfg, resume=False):
        calls.append((Path(cfg.run_dir).name, resume))
        folder = Path(cfg.run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(cfg.__dict__))
        stop = len(calls) == 2
        events = [dict(event="run_start", time=1.0, config={}), dict(event="run_end", time=2.0, seconds=1.0, ok=not stop, error="Interrupted" if stop else "")]
        (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
        if stop: raise KeyboardInterrupt
    monkeypatch.setattr("latent_summ.use.sweep._scored", lambda *_: [dict(bits=8, bytes=1, facts=1.0, roles=1.0, rougeL=1.0, carried=1.0, ceiling=1.0)])
    grid = dict(seed=[1, 2])
    with pytest.raises(KeyboardInterrupt): run_sweep(cfg, grid, tmp_path, train=train)
    assert len(run_sweep(cfg, grid, tmp_path, train=train)) == 2
    assert calls == [("seed=1", False), ("seed=2", False), ("seed=2", True)]
    with pytest.raises(CheckpointError, match="batch_size was 64, is 32"): run_sweep(cfg.override(batch_size=32), grid, tmp_path, train=train)
    assert len(calls) == 3


def test_the_sweep_command_names_the_runs_that_failed(tmp_path, monkeypatch, capsys):
    "The table of the others is written first; the exit status tells a script that something is missing."
    def train(heard, cfg, resume=False):
        if cfg.seed == 2: raise DataError("no such rows")
        folder = Path(cfg.run_dir)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "events.jsonl").write_text("")
    monkeypatch.setattr("latent_summ.ui.commands._train_one", train)
    monkeypatch.setattr("latent_summ.use.sweep._scored", lambda *_: [dict(bits=8, bytes=1, facts=1.0, roles=1.0, rougeL=1.0, carried=1.0, ceiling=1.0)])
    assert status_of(["sweep", "--preset", "mini", "--set", "seed=1,2", "--folder", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "run 2 of 2: seed=2" in told.out and "failed: no such rows" in told.out
    assert "1 of 2 runs failed: seed=2. The same command tries it again." in told.err, told.err
    assert [line["run"] for line in json.loads((tmp_path / "table.json").read_text())["lines"]] == ["seed=1"]


@pytest.mark.parametrize("grid,words", [(dict(latent_dim=[64, 65]), "latent_dim=65 cannot be trained"), (dict(seed=[]), "no value for seed"),
                                        (dict(run_dir=["a"]), "run_dir is chosen by the sweep")])
def test_grids_that_cannot_be(grid, words):
    with pytest.raises(ConfigError, match=words): grid_points(Config.preset("mini"), grid, "x")
