"""A run's page: complete from its folder alone, safe whatever stands in it, readable on white and black, and long logs stay small."""
import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from latent_summ.use import runs as reports
from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.config import STAGES, Config, LatentSummError
from latent_summ.use.evaluate import evaluate_predictions
from latent_summ.use.inference import Summarizer
from latent_summ.data.messenger import chats
from latent_summ.model.model import LatentSummarizer
from latent_summ.use.report import rate_figure, write_report
from latent_summ.use.figures import loss_figure, INK, Picture
from latent_summ.use.latent_figures import latents_figure, measure_latents, quantisation_figure
from latent_summ.use.run_log import RunLog, run_events
from latent_summ.use.runs import FIGURES, write_page
from latent_summ.runtime import DataError, pick_device

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{ & \"'"


def step(stage, i, steps, loss=None, **more):
    return dict(time=100.0 + i, event="step", stage=stage, step=i, steps=steps, epoch=0, loss=3.0 / i if loss is None else loss, lr=1e-3, grad_norm=1.0 / i) | more


def toy_events(stages=STAGES, steps=30):
    yield dict(time=99.0, event="run_start", config={}, resumed=False)
    for stage in stages:
        yield dict(time=99.0, event="stage_start", stage=stage, step=0, steps=steps, epochs=2, rows=100, batch_size=10)
        yield from (step(stage, i, steps) for i in range(1, steps + 1))
        yield dict(time=200.0, event="validation", stage=stage, step=steps, loss=0.2)
        yield dict(time=200.0, event="stage_end", stage=stage, seconds=3.0, best_loss=0.2)
    yield dict(time=201.0, event="run_end", seconds=12.0, ok=True, error="")


def write_lines(path, records): path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


@pytest.fixture
def run(tmp_path):
    "A run's folder with everything but a checkpoint; its texts try what they can."
    folder = tmp_path / "run"
    folder.mkdir()
    write_lines(folder / "events.jsonl", toy_events())
    (folder / "config.json").write_text(json.dumps(Config.preset("mini").override(text_column=EVIL).__dict__))
    rows = [r | dict(dialogue=r["dialogue"] + "\n" + EVIL) for r in chats(12, "test", seed=0)]
    report = evaluate_predictions(rows, [EVIL] * len(rows)) | dict(source=EVIL, source_split=EVIL, latent_bytes=dict(int8=2080, float32=8192))
    write_report(folder, report, rows, [EVIL] * len(rows))
    return folder


# --- the page ----------------------------------------------------------------------------------------------------------

def test_page_holds_what_there_is_data_for_names_the_rest_and_is_safe(run):
    text = write_page(run, texts=0).read_text(encoding="utf-8")
    assert [n for n in FIGURES if f'id="{n}"' in text] == ["loss", "schedule", "scores", "facts", "rate"]
    left_out = text[text.index("Left out"):]
    assert all(FIGURES[n][0] in left_out for n in ("ladder", "latents", "quantisation")) and "--ladder" in left_out
    assert {p.name for p in (run / "figures").iterdir()} == {f"{n}.{end}" for n in ("loss", "schedule", "scores", "facts", "rate") for end in ("png", "svg")}
    # nothing from data is markup, and nothing is fetched
    assert "<script" not in text and "<img src=x" not in text and text.count("&lt;script&gt;") >= 12
    assert set(re.findall(r'(?:src|href)="([a-z]+:[^;]{0,20})', text)) == {"data:image/svg+xml"}
    assert "default-src 'none'" in text


@pytest.fixture
def only(monkeypatch): return lambda *names: monkeypatch.setattr(reports, "FIGURES", {n: FIGURES[n] for n in names})


def test_names_of_stages_are_escaped_and_no_mathematics(tmp_path, only):
    only("loss")
    write_lines(tmp_path / "events.jsonl", toy_events(stages=(EVIL,)))
    text = write_page(tmp_path, texts=0).read_text(encoding="utf-8")
    assert 'id="loss"' in text and "<script" not in text


def test_damaged_files_are_named_and_the_rest_is_shown(run, only):
    only("facts")
    (run / "predictions.jsonl").write_text("{broken\n")
    (run / "config.json").write_text("[]")
    text = write_page(run, texts=0).read_text(encoding="utf-8")
    assert text.count("Could not be read") == 2 and 'id="facts"' in text and "predictions.jsonl is damaged" in text


def test_a_checkpoint_that_cannot_be_loaded_costs_only_its_figures(run, only):
    only("facts", "latents")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/best_model.pt").write_bytes(b"no checkpoint")
    text = write_page(run).read_text(encoding="utf-8")
    assert 'id="facts"' in text and 'id="latents"' not in text and "best_model.pt" in text[text.index("Left out"):]


def test_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not hold a run"): write_page(tmp_path)


# --- the style -----------------------------------------------------------------------------------------------------------

def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for w, c in zip((0.2126, 0.7152, 0.0722), parts))


def contrast(a, b):
    high, low = sorted([luminance(a), luminance(b)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_ink_can_be_read_on_white_and_on_black():
    assert contrast(INK, "#ffffff") >= 4.5 and contrast(INK, "#000000") >= 4.5


def colours_of_text(figure): return {t.get_color() for ax in figure.axes for t in ax.findobj(Text) if t.get_text()}


def test_all_text_has_the_one_ink_and_pictures_have_no_background():
    figure = loss_figure(list(toy_events(stages=STAGES[:1])))
    assert isinstance(figure, Picture) and colours_of_text(figure) == {INK}
    assert all(ax.get_ylabel() and ax.get_xlabel() for ax in figure.axes)
    first = figure.svg()
    assert ET.fromstring(first).tag.endswith("svg") and "prefers-color-scheme:dark" in first
    assert figure.svg() == first  # the same bytes each time: no date, no random names, and nothing moves
    assert figure.png()[25] == 6  # RGBA


def test_runs_of_several_sizes_are_points_of_one_figure():
    points = pd.DataFrame([("8 x 256", 2080, 0.75), ("4 x 256", 1040, 0.6), ("$\\frac", 10, 0.1)], columns=["name", "bytes", "facts"])
    ax = rate_figure(points).axes[0]
    assert [tuple(line.get_xydata()[0]) for line in ax.lines] == [(2080, 75), (1040, 60), (10, 10)]


# --- long logs -------------------------------------------------------------------------------------------------------------

def test_a_long_log_is_thinned_and_keeps_its_extremes(tmp_path):
    path = tmp_path / "events.jsonl"
    spike = {33_333: 99.0}
    write_lines(path, [dict(event="stage_start", stage="legacy", step=0, steps=40_000), *(step("legacy", i, 40_000, spike.get(i, 1.0)) for i in range(1, 40_001)),
                       dict(event="stage_end", stage="legacy", seconds=1.0)])
    log = RunLog(path, most=300)
    assert log.update() == 40_002
    steps = [e for e in log.events if e["event"] == "step"]
    assert len(steps) <= 300 and sum(e["merged"] for e in steps) == 40_000 and max(e["loss_high"] for e in steps) == 99.0
    assert abs(sum(e["loss"] * e["merged"] for e in steps) - 40_098) < 1e-3 and log.events[-1]["event"] == "stage_end"
    assert [e["step"] for e in steps] == sorted(e["step"] for e in steps)


def test_steps_that_a_resumed_run_does_again_replace_the_first(tmp_path):
    path, start = tmp_path / "events.jsonl", dict(event="stage_start", stage="legacy", steps=20)
    write_lines(path, [start | dict(step=0), *(step("legacy", i, 20, 1.0) for i in range(1, 16)), start | dict(step=10), *(step("legacy", i, 20, 2.0) for i in range(11, 13))])
    assert [(e["step"], e["loss"]) for e in run_events(tmp_path) if e["event"] == "step"] == [(i, 1.0) for i in range(1, 11)] + [(11, 2.0), (12, 2.0)]


def test_a_log_is_read_as_it_grows_byte_by_byte(tmp_path):
    path, events = tmp_path / "events.jsonl", [dict(event="note", message="é\n"), *(step("legacy", i, 5) for i in range(1, 6))]
    data = "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events).encode()
    log, heard = RunLog(path), []
    for i in range(len(data)):
        with open(path, "ab") as f: f.write(data[i:i + 1])
        log.update(heard.append)
    assert heard == log.events == events


def test_a_line_that_is_no_event_is_named(tmp_path):
    for bad in ("[]", "{}", "nonsense", '{"event": "step"}', "3"):
        write_lines(tmp_path / "events.jsonl", [dict(event="note", message="x")])
        with open(tmp_path / "events.jsonl", "a") as f: f.write(bad + "\n")
        with pytest.raises(LatentSummError, match="line 2 is not an event"): RunLog(tmp_path / "events.jsonl").update()


# --- what the model is asked ---------------------------------------------------------------------------------------------------

def test_latents_are_measured_as_the_model_makes_them():
    cfg = Config.preset("mini").override(embedding_normalizer="none", use_bf16=False)
    device = pick_device(cfg)
    s = Summarizer(cfg, LatentSummarizer(cfg), load_encoder(cfg, device), load_decoder(cfg, device))
    rows = chats(6, "test", seed=0)
    texts, summaries = [r["dialogue"] for r in rows], [r["summary"] for r in rows]
    m = measure_latents(s, texts, summaries)
    assert np.allclose(m.document, s.encode(texts).numpy(), atol=1e-5) and np.allclose(m.reference, s.encode(summaries).numpy(), atol=1e-5)
    assert np.allclose(m.predicted, s.compress_meaning(s.encode(texts)).numpy(), atol=1e-5)
    assert {k: v.shape for k, v in m.lengths.items()} == dict(document=(6, 8), summary=(6, 8)) and not np.allclose(m.lengths["document"], 1)
    same = dataclasses.replace(m, predicted=m.reference)
    assert "100 % of 6" in latents_figure(same).axes[2].get_title(loc="left")
    assert colours_of_text(latents_figure(m)) == colours_of_text(quantisation_figure(m)) == {INK}
