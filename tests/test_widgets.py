"""The widgets: their logic without a browser, and (where there is one) JupyterLab with a hand on slider and button.

    python -m pytest tests/test_widgets.py                       what needs no browser
    LATENT_SUMM_BROWSER=1 python -m pytest tests/test_widgets.py   also the browser: needs pip install 'latent_summ[browser]', and a Chromium
                                                                   (Debian's; or `playwright install chromium`, which the test tries by itself)
"""
import contextlib
import html
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import IPython.display
import pytest
import torch

from latent_summ.ui import dashboard, explorer, widgets as faces
from latent_summ.config import Config, ConfigError, LatentSummError
from latent_summ.sections import SECTIONS
from latent_summ.ui.flags import flag_words
from latent_summ.ui.widgets import ConfigForm, every_widget, in_html, somebody_there
from latent_summ.ui.explorer import LatentExplorer
from latent_summ.ui.dashboard import TrainingDashboard
from latent_summ.use.support import Support

ROOT = Path(__file__).resolve().parent.parent
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def harmless(text: str) -> bool: return "<script" not in text and "<img src=x" not in text and "&lt;script&gt;" in text


def until(what, seconds=60.0):
    "Wait for `what()` to be true."
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


# --- a config as a form -----------------------------------------------------------------------------------------------------

def test_every_field_has_a_control_and_every_section_a_fold():
    form = ConfigForm()
    assert list(form.controls) == list(Config.__dataclass_fields__) and len(form.folds.children) == len(SECTIONS)
    assert all(c.placeholder for c in form.controls.values() if hasattr(c, "placeholder") and type(c).__name__ == "Text" and c is not form.controls["trackers"])


def test_a_config_goes_in_and_comes_out():
    cfg = Config.preset("mini").override(use_tui=False, learning_rate=3e-5, max_train_samples=7, text_column="none", train_split="--no such\n'split'", optimizer="adamw")
    form = ConfigForm(cfg)
    assert form.config == cfg and set(flag_words(cfg, Config.preset("mini"))) <= set(shlex.split(form.command))


def test_invalid_input_is_marked_at_once_with_its_reason():
    form = ConfigForm()
    field = form.controls["batch_size"]
    for word, reason in (("0", "must be >= 1"), ("many", "must be int"), ("1e3", "Write it out: 1000"), ("", "must be int")):
        field.value = word
        assert html.escape(reason) in form.notes["batch_size"].value and form.folds.get_title(1).endswith("1 wrong")
        with pytest.raises(ConfigError): print(form.config)
    field.value = "8"
    assert form.config.batch_size == 8 and "wrong" not in form.folds.get_title(1) and "✗" not in form.notes["batch_size"].value


def test_another_preset_fills_the_form():
    form = ConfigForm()
    form.preset.value = "reference"
    assert form.config == Config()


def test_form_saves_what_it_shows_and_refuses_what_it_cannot(tmp_path):
    form = ConfigForm()
    form.path.value = str(tmp_path / "mine.json")
    form.save.click()
    assert Config.load(tmp_path / "mine.json") == form.config
    form.controls["seed"].value = "-1"
    form.path.value = str(tmp_path / "other.json")
    form.save.click()
    assert not (tmp_path / "other.json").exists() and "seed must be" in form.saved.value


def test_texts_in_a_form_are_escaped():
    form = ConfigForm()
    form.controls["run_dir"].value = EVIL
    form.controls["learning_rate"].value = EVIL
    assert harmless(form.still()) and harmless(form.notes["learning_rate"].value)
    form.controls["learning_rate"].value = "1"
    assert harmless(form.line.value) and harmless(form.still())


# --- a run, live --------------------------------------------------------------------------------------------------------------

def step(i, steps=40): return dict(time=100.0 + i, event="step", stage="legacy", step=i, steps=steps, epoch=0, loss=3.0 / i, lr=1e-3, rows_per_s=500.0)


BEGIN = [dict(time=100.0, event="run_start", config=dict(pipeline_mode="legacy"), resumed=False),
         dict(time=100.0, event="stage_start", stage="legacy", step=0, steps=40, epochs=1, rows=100, batch_size=10)]


def append(path, *events):
    with open(path, "a", encoding="utf-8") as f: f.writelines(json.dumps(e) + "\n" for e in events)


@pytest.fixture
def path(tmp_path): return tmp_path / "events.jsonl"


def threads(): return [t for t in threading.enumerate() if t.name.startswith("dashboard")]


def test_a_log_that_another_process_writes_is_followed(path):
    code = f"""
import json, time
for e in {[*BEGIN, *(step(i) for i in range(1, 41))]!r}:
    with open({str(path)!r}, "a") as f:
        text = json.dumps(e) + "\\n"
        f.write(text[:9]); f.flush(); time.sleep(0.02); f.write(text[9:])
"""
    with TrainingDashboard(path.parent, every=0.05) as d:
        assert d.doing == "not started" and d.curves.value == b"" and d.table.value == ""
        p = subprocess.Popen([sys.executable, "-c", code])
        until(lambda: d.state.current and d.state.current.step >= 5)
        assert d.doing == "running" and "of 40" in d.head.value
        until(lambda: d.curves.value)
        early = d.curves.value
        until(lambda: d.state.current.step == 40)
        p.wait()
        d.refresh(draw=True)
        assert d.curves.value != early and d.start.disabled and d.stop.disabled
    assert not threads()


def test_time_left_comes_from_the_log_and_not_from_when_it_was_read(path):
    append(path, *BEGIN, *(step(i) for i in range(1, 21)))
    with TrainingDashboard(path.parent) as d: assert d.state.left(d.now) == 20.0 and d.state.progress()[0] == 0.5


def test_a_resumed_run_keeps_what_is_known_and_a_new_one_forgets(path):
    append(path, *BEGIN, *(step(i) for i in range(1, 21)), dict(time=121.0, event="run_end", seconds=21.0, ok=False, error="Interrupted"))
    with TrainingDashboard(path.parent, every=30) as d:
        assert d.doing == "stopped"
        append(path, BEGIN[0] | dict(resumed=True), BEGIN[1] | dict(step=15), step(16))
        d.refresh()
        assert (d.doing, d.state.current.step) == ("running", 16) and [e["step"] for e in d.log.events if e["event"] == "step"] == list(range(1, 17))
        path.unlink()
        append(path, *BEGIN)
        d.refresh()
        assert d.state.current.step == 0 and not [e for e in d.log.events if e["event"] == "step"]


def test_a_broken_log_is_told_and_the_dashboard_lives(path):
    append(path, *BEGIN)
    with TrainingDashboard(path.parent, every=0.05) as d:
        with open(path, "a") as f: f.write("nonsense\n")
        until(lambda: "line 3 is not an event" in d.head.value)
        assert threads()
    assert not threads()


def test_texts_of_a_run_are_escaped(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(3)>"
    folder.mkdir()
    append(folder / "events.jsonl", *({k: EVIL if k == "stage" else v for k, v in e.items()} for e in [*BEGIN, step(1), step(2)]),
           dict(time=103.0, event="checkpoint", stage=EVIL, step=2, path=EVIL, best=False))
    with TrainingDashboard(folder) as d: assert harmless(d.still()) and harmless(d.table.value) and "<img src=x" not in d.head.value


TOY = """
import json, os, signal, sys, time
from pathlib import Path
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
words = sys.argv[1:]
folder = Path(next(w.split("=", 1)[1] for w in words if w.startswith("--run-dir=")))
folder.mkdir(parents=True, exist_ok=True)
steps, at = 100000, int((folder / "at").read_text()) if "--resume" in words else 0
with open(folder / "events.jsonl", "a", buffering=1) as log:
    def say(**e): log.write(json.dumps(dict(time=time.time(), **e)) + "\\n")
    say(event="run_start", config={}, resumed="--resume" in words)
    say(event="stage_start", stage="legacy", step=at, steps=steps, epochs=1, rows=9, batch_size=1)
    while not stopped:
        at += 1
        say(event="step", stage="legacy", step=at, steps=steps, epoch=0, loss=1.0, lr=1e-3, rows_per_s=9.0)
        time.sleep(0.01)
    (folder / "at").write_text(str(at))
    say(event="run_end", seconds=1.0, ok=False, error="Interrupted")
sys.exit(130)
"""


@pytest.fixture
def toy(monkeypatch, tmp_path):
    "A dashboard whose runs are a toy that writes events until Ctrl-C."
    monkeypatch.setattr(dashboard, "_CHILD", TOY)
    with TrainingDashboard(Config.preset("mini").override(run_dir=str(tmp_path / "run")), every=0.02) as d:
        yield d
        if d.process and d.process.poll() is None: os.killpg(d.process.pid, signal.SIGKILL)


def test_start_pause_go_on_stop_resume(toy):
    def at(): return toy.state.current.step if toy.state.current else 0
    assert (toy.start.description, toy.start.disabled, toy.pause.disabled, toy.stop.disabled) == ("start", False, True, True)
    toy.start.click()
    until(lambda: at() > 3)
    assert (toy.doing, toy.start.disabled, toy.pause.disabled, toy.stop.disabled) == ("running", True, False, False)
    toy.pause.click()
    time.sleep(0.1)
    toy.refresh()
    held = at()
    time.sleep(0.3)
    assert (toy.doing, at(), toy.pause.description) == ("paused", held, "continue")
    toy.pause.click()
    until(lambda: at() > held + 3)
    toy.pause.click()
    toy.stop.click()  # while paused: it must be woken to save
    toy.process.wait(30)
    toy.refresh()
    stopped = at()
    assert (toy.doing, toy.start.description, toy.start.disabled, toy.last_words()) == ("stopped", "resume", False, "")
    toy.start.click()
    until(lambda: at() > stopped + 3)
    assert toy.doing == "running"


def test_close_ends_the_thread_leaves_the_run_and_wakes_a_paused_one(toy):
    toy.start.click()
    until(lambda: toy.state.current)
    toy.pause.click()
    widgets = every_widget(toy.box)
    toy.close()
    assert not threads() and all(w.comm is None for w in widgets)
    before = (toy.folder / "events.jsonl").stat().st_size
    until(lambda: (toy.folder / "events.jsonl").stat().st_size > before)
    assert toy.process.poll() is None


def test_what_a_failed_run_said_is_shown(toy, monkeypatch):
    monkeypatch.setattr(dashboard, "_CHILD", f"import sys; print({EVIL!r}); sys.exit(1)")
    toy.start.click()
    toy.process.wait(30)
    toy.refresh()
    assert harmless(toy.head.value) and not toy.start.disabled


def test_stop_saves_a_real_run(tmp_path):
    cfg = Config.preset("mini").override(use_bf16=False, run_dir=str(tmp_path / "run"), preprocess_cache_dir=str(tmp_path / "cache"), messenger_rows=200, max_eval_samples=20,
                                         pretrain_middle_max_samples=200, pretrain_adapter_max_samples=200, pretrain_adapter_epochs=1, finetune_middle_epochs=999)
    with TrainingDashboard(cfg, every=0.1) as d:
        d.start.click()
        until(lambda: d.process.poll() is not None or any(e["event"] == "step" and e["stage"] == "finetune_middle" for e in d.log.events), 300)
        d.stop.click()
        assert d.process.wait(120) == 130, d.last_words()
        d.refresh(draw=True)
        assert (d.doing, d.start.description) == ("stopped", "resume") and d.state.checkpoint.startswith("step-finetune_middle")
        assert (tmp_path / "run/checkpoints" / d.state.checkpoint).is_file() and d.curves.value[:4] == b"\x89PNG"


# --- a latent space -------------------------------------------------------------------------------------------------------------

class Stand:
    "Stands in for a `Summarizer`: a text's latents are its letters, a decoded text says what the first number is."
    cfg = Config.preset("mini").override(latent_seq_len=2, latent_dim=4, normalize_latent=False, middle_num_heads=2)
    calls = 0

    def encode(self, texts):
        self.calls += 1
        return torch.tensor([[float(ord(c)) for c in f"{t:8.8}"] for t in texts]).reshape(-1, 2, 4)

    def compress_meaning(self, latents): return latents + 1000
    def support_of(self, latents, summaries, texts): return [Support(s, 0.25, reason="<i>it fades</i>") for s in summaries]
    def decode(self, latents, do_sample): return [f"<b>{x[0, 0]:.1f}</b>" for x in latents]
    def nearest(self, query, corpus, k): return [[(int(i), 1 / (1 + float(d[i]))) for i in d.argsort()[:k]] for d in torch.cdist(query.flatten(1), corpus.flatten(1))]


CORPUS = ["axolotl", "badger", EVIL, *(f"{c}{'ab' * i}" for i, c in enumerate("cdefghij"))]


def shown(value): return in_html(f"<b>{value:.1f}</b>", "font-size:1.15em;padding:.4rem 0")


@pytest.fixture
def quick(monkeypatch):
    "Pictures that take no time: their bytes tell what would be drawn."
    class Drawn:
        def __init__(self, *what): self.what = what
        def png(self, dpi): return b"\x89PNG" + repr(self.what).encode()
    for name in ("latents_picture", "map_picture"): monkeypatch.setattr(explorer, name, Drawn)


def test_the_slider_changes_the_text_the_heat_map_and_the_neighbours():
    e = LatentExplorer(Stand(), CORPUS)
    assert e.text.value == shown(1097.0)
    heat, near, chart = e.heat.value, e.near.value, e.map.value
    e.alpha.value = 1.0
    assert e.text.value == shown(1098.0) and heat != e.heat.value and near != e.near.value and chart != e.map.value
    e.between.value = False
    assert e.text.value == shown(98.0)
    e.a.value = "zebra"
    e.alpha.value = 0.5
    assert e.text.value == shown((ord("z") + ord("b")) / 2)


def test_latents_are_knocked_out_and_the_support_bar_follows(quick):
    e = LatentExplorer(Stand(), CORPUS)
    assert 'value="0.250"' in e.support.value and "support by A: 0.25" in e.support.value
    assert "<i>" not in e.support.value and "&lt;i&gt;it fades" in e.support.value and e.support.value in e.still()
    e.knocked[0].value = True
    assert e.text.value == shown(1000 + sum(ord(c[0]) for c in CORPUS) / len(CORPUS))
    e.knocked[0].value = False
    e.alpha.value = 0.75
    assert e.text.value == shown(1097.75) and "support by B" in e.support.value
    e.between.value = False
    assert e.support.value == "" # support is of summaries


def test_facts_are_read_while_the_side_channel_is_on(quick):
    class Reads(Stand):
        cfg = Stand.cfg.override(side_channel=16)
        def facts_of(self, texts): return [t.encode() for t in texts]
        def decode(self, latents, do_sample, facts=(b"none",)): return [f"{x[0, 0]:.1f} {facts[0].decode()}" for x in latents]
    e = LatentExplorer(Reads(), CORPUS)
    assert e.side.value and "axolotl" in e.text.value
    e.side.value = False
    assert "none" in e.text.value
    assert LatentExplorer(Stand(), CORPUS).side.disabled


def test_a_chosen_point_shows_its_text_and_becomes_an_end(quick):
    e = LatentExplorer(Stand(), CORPUS)
    before = e.map.value
    e.rows.value = 5
    assert CORPUS[5] in e.chosen.value and "→" in e.chosen.value and e.map.value != before
    e.to_a.click()
    assert e.a.value == CORPUS[5]


def test_the_corpus_is_encoded_once_for_each_kind_of_latents(quick):
    e = LatentExplorer(Stand(), CORPUS)
    e.s.calls = 0
    for alpha in (0.1, 0.2, 0.3): e.alpha.value = alpha
    assert e.s.calls == 0
    e.between.value = False
    assert e.s.calls == 2
    e.between.value = True
    assert e.s.calls == 2


def test_texts_in_an_explorer_are_escaped(quick):
    e = LatentExplorer(Stand(), CORPUS, a=EVIL, b=EVIL)
    e.rows.value = 2
    assert harmless(e.still()) and "<b>1060" not in e.still() and harmless(e.chosen.value) and "<script" not in e.near.value


def test_errors_are_shown_in_the_explorer(quick):
    class Broken(Stand):
        def decode(self, latents, do_sample): raise LatentSummError(EVIL)
    e = LatentExplorer(Broken(), CORPUS)
    assert harmless(e.text.value)


def test_umap_is_an_extra(monkeypatch, quick):
    monkeypatch.setitem(sys.modules, "umap", None)
    e = LatentExplorer(Stand(), CORPUS, layout="umap")
    assert "pip install" in e.chosen.value and e.text.value == shown(1097.0)

    class Umap:
        def __init__(self, **options): pass
        def fit(self, x): return self
        def transform(self, x): return x[:, :2]
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Umap))
    e = LatentExplorer(Stand(), CORPUS, layout="umap")
    assert e.map.value[:4] == b"\x89PNG" and e.flat_map()[1] == ["UMAP 1", "UMAP 2"]


def test_a_small_corpus_has_a_map_too():
    for n in (1, 2, 3): assert LatentExplorer(Stand(), CORPUS[:n]).map.value[:4] == b"\x89PNG"


# --- live, and as a picture ---------------------------------------------------------------------------------------------------------

def outputs(monkeypatch, face, somebody):
    "What a notebook gets for a face."
    shown = []

    class Handle:
        def update(self, what): shown.append(("update", what))

    def display(what, display_id=False):
        shown.append(what)
        return Handle() if display_id else None
    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(faces, "somebody_there", lambda: somebody)
    face._ipython_display_()
    return shown


def test_a_program_that_only_runs_a_notebook_gets_the_picture(monkeypatch, quick):
    e = LatentExplorer(Stand(), CORPUS)
    only, = outputs(monkeypatch, e, False)
    assert only.data == e.still() and only.data.count("data:image/png;base64") == 2


def test_a_person_gets_widgets_with_the_picture_hidden_below(monkeypatch, quick):
    e = LatentExplorer(Stand(), CORPUS)
    box, below = shown = outputs(monkeypatch, e, True)
    assert box is e.box and e.still() in below.data and f"body:has(.{e.name})" in below.data and e.name in e.box._dom_classes
    e.alpha.value = 1.0
    e.close()
    assert shown[-1][0] == "update" and shown[-1][1].data == e._below() and "alpha 1.00" in shown[-1][1].data
    assert all(w.comm is None for w in every_widget(e.box))


def test_nobody_is_there_without_a_kernel(): assert not somebody_there()


# --- in a browser ----------------------------------------------------------------------------------------------------------------------

NOTEBOOKS = dict(form="""
from latent_summ.ui.widgets import ConfigForm
----
form = ConfigForm()
form
""", run="""
from latent_summ.config import Config
from latent_summ.ui.dashboard import TrainingDashboard
----
cfg = Config.preset("mini").override(use_bf16=False, run_dir="runs/live", preprocess_cache_dir="cache", messenger_rows=300, max_eval_samples=20, pretrain_middle_max_samples=200,
                                     pretrain_adapter_max_samples=1000, pretrain_adapter_epochs=1, finetune_middle_epochs=1, finetune_adapter_epochs=1)
dashboard = TrainingDashboard(cfg)
dashboard
""", walk="""
import os
from latent_summ.use.inference import Summarizer
from latent_summ.data.messenger import chats
from latent_summ.ui.explorer import LatentExplorer
----
explorer = LatentExplorer(Summarizer.from_pretrained(os.environ["LATENT_SUMM_TEST_MODEL"]), chats(40, "test", seed=0))
explorer
""")
HOSTILE = """
import json
from pathlib import Path
from latent_summ.config import Config
from latent_summ.use.inference import Summarizer
from latent_summ.data.messenger import chats
from latent_summ.ui.widgets import ConfigForm
from latent_summ.ui.explorer import LatentExplorer
from latent_summ.ui.dashboard import TrainingDashboard
evil = "<img src=x onerror=window.pwned=1><script>window.pwned=2</script>"
run = Path("<img src=x onerror=window.pwned=3>")
run.mkdir()
events = [dict(time=1.0, event="plan", stages=[dict(stage=evil, steps=2)]), dict(time=2.0, event="stage_start", stage=evil, step=0, steps=2, epochs=1, rows=5, batch_size=4),
          dict(time=3.0, event="step", stage=evil, step=1, steps=2, epoch=0, loss=1.0, lr=0.1), dict(time=4.0, event="run_end", seconds=4.0, ok=False, error=evil)]
_ = (run / "events.jsonl").write_text("".join(json.dumps(e) + "\\n" for e in events))
----
"""
NOTEBOOKS |= {f"hostile-{name}": HOSTILE + code for name, code in dict(
    explorer='LatentExplorer(Summarizer.from_pretrained("mini"), [r | dict(dialogue=evil + r["dialogue"], summary=evil + r["summary"]) for r in chats(12, "test", seed=0)])',
    dashboard="TrainingDashboard(run)", form="ConfigForm(Config(dataset_name=evil, run_dir=str(run)))").items()}
PATIENCE = 900_000 # milliseconds: a machine may have other things to do


def chromium():
    "Debian's Chromium, or playwright's own (None); skips with the reason where there is neither."
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found: return found
    p = subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], capture_output=True, text=True)
    if p.returncode: pytest.skip(f"no browser here: apt-get install chromium, or playwright install chromium, which says: {(p.stdout + p.stderr).strip()[-300:]}")
    return None


@pytest.fixture
def lab(tmp_path):
    "JupyterLab on a folder with a notebook; its address."
    import nbformat
    for name in ("jupyterlab", "playwright"):
        if importlib.util.find_spec(name) is None: pytest.skip(f"{name} is not installed: pip install 'latent_summ[browser]'")
    for name, code in NOTEBOOKS.items():
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in code.split("----")])
        nb.metadata["kernelspec"] = dict(name="python3", display_name="python3", language="python")
        nbformat.write(nb, tmp_path / f"{name}.ipynb")
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", JUPYTER_CONFIG_DIR=str(tmp_path / "config"), JUPYTER_DATA_DIR=str(tmp_path / "data"), HF_HUB_OFFLINE="1")
    words = ["-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token=",
             f"--ServerApp.root_dir={tmp_path}"]
    with open(tmp_path / "lab.log", "w") as log: p = subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        def answers():
            assert p.poll() is None, (tmp_path / "lab.log").read_text()[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1): return True
        until(answers, 180)
        yield f"http://127.0.0.1:{port}/lab/tree"
    finally:
        with contextlib.suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGTERM)
        p.wait()


@pytest.fixture
def model(tmp_path):
    "A model that can write a little: LATENT_SUMM_TEST_MODEL names one, else one is trained for half a minute."
    if os.environ.get("LATENT_SUMM_TEST_MODEL"): return
    cfg = Config.preset("mini").override(use_bf16=False, run_dir=str(tmp_path / "model"), preprocess_cache_dir=str(tmp_path / "cache"), messenger_rows=800, max_eval_samples=20,
                                         pretrain_middle_max_samples=200, pretrain_adapter_max_samples=2500, pretrain_adapter_epochs=2, finetune_middle_epochs=2)
    subprocess.run([sys.executable, "-m", "latent_summ", "train", *flag_words(cfg, Config())], check=True, env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"))
    os.environ["LATENT_SUMM_TEST_MODEL"] = cfg.run_dir


browser_only = pytest.mark.skipif(not os.environ.get("LATENT_SUMM_BROWSER"),
                                  reason="takes minutes: LATENT_SUMM_BROWSER=1 runs it (needs pip install 'latent_summ[browser]' and a Chromium)")


@pytest.fixture
def opened(lab):
    "Open a notebook, run its cells, and give the page and the cell with the widget."
    from playwright.sync_api import expect, sync_playwright
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=["--no-sandbox"], timeout=PATIENCE)
        page = browser.new_page(viewport=dict(width=1280, height=800))
        page.set_default_timeout(PATIENCE)

        def open_it(name):
            page.goto(f"{lab}/{name}.ipynb?reset")
            page.locator(".jp-Notebook .jp-CodeCell").nth(1).wait_for()
            page.get_by_text("| Idle").wait_for()  # the kernel is there: what is run before that is lost
            page.locator(".jp-Notebook .jp-CodeCell").first.click()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
            cell = page.locator(".jp-CodeCell").nth(1)
            cell.locator(".jupyter-widgets").first.wait_for()
            return page, cell
        yield open_it
        browser.close()


def pictures(tmp_path): return Path(os.environ.get("LATENT_SUMM_PICTURES", tmp_path))


@browser_only
def test_slider_in_jupyterlab(model, opened, tmp_path):
    from playwright.sync_api import expect
    page, cell = opened("walk")
    slider, text, heat = cell.get_by_role("slider"), cell.locator(".widget-html-content").first, cell.locator("img").first
    before, picture = text.inner_text(), heat.get_attribute("src")
    slider.focus()
    for _ in range(20): page.keyboard.press("ArrowRight")
    expect(text).not_to_have_text(before)
    expect(heat).not_to_have_attribute("src", picture)
    expect(cell.locator("div[class$='-still']")).to_be_hidden()
    chosen = cell.get_by_text("→").first
    before = chosen.inner_text()
    cell.get_by_role("listbox").select_option(index=7)
    expect(chosen).not_to_have_text(before)
    cell.screenshot(path=pictures(tmp_path) / "explorer.png")
    page.set_viewport_size(dict(width=480, height=900))
    page.screenshot(path=pictures(tmp_path) / "narrow.png")


@browser_only
def test_start_in_jupyterlab(opened, tmp_path):
    from playwright.sync_api import expect
    page, cell = opened("run")
    cell.get_by_role("button", name="start").click()
    curve = cell.locator("img.widget-image")
    page.wait_for_function("e => e.naturalWidth > 100", arg=curve.element_handle())
    first = curve.get_attribute("src")
    cell.screenshot(path=pictures(tmp_path) / "dashboard.png")
    expect(curve).not_to_have_attribute("src", first)
    expect(cell.get_by_text("finished").first).to_be_visible()
    cell.screenshot(path=pictures(tmp_path) / "dashboard-end.png")


@browser_only
def test_form_in_jupyterlab_and_what_is_left_of_it_tomorrow(opened, tmp_path):
    from playwright.sync_api import expect
    page, cell = opened("form")
    cell.get_by_text("Training Hyperparameters").first.click()
    field = cell.locator("xpath=.//code[text()='batch_size']/ancestor::*[contains(@class,'widget-box')][1]//input")
    field.fill("0")
    expect(cell.get_by_text("must be >= 1, got 0").first).to_be_visible()
    expect(cell.get_by_text("Training Hyperparameters: 1 wrong").first).to_be_visible()
    cell.screenshot(path=pictures(tmp_path) / "form.png")
    field.fill("16")
    expect(cell.get_by_text("--batch-size=16").first).to_be_visible()
    page.keyboard.press("Control+s")
    until(lambda: "-still" in (tmp_path / "form.ipynb").read_text())
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Shut Down Kernel")).click()
    page.reload()
    expect(page.locator("div[class$='-still'], .jp-RenderedHTMLCommon details").first).to_be_visible()
    page.screenshot(path=pictures(tmp_path) / "tomorrow.png")


@browser_only
@pytest.mark.parametrize("name", ["explorer", "dashboard", "form"])
def test_hostile_texts_and_names_stay_texts_in_jupyterlab(name, opened, tmp_path):
    from playwright.sync_api import expect
    page, cell = opened(f"hostile-{name}")
    if name == "explorer":
        cell.get_by_role("listbox").select_option(index=7)
        cell.get_by_role("slider").focus()
        for _ in range(5): page.keyboard.press("ArrowRight")
    if name == "form": cell.get_by_text("Data", exact=False).first.click()
    expect(cell.get_by_text("<img src=x onerror=window.pwned").first).to_be_attached()
    page.wait_for_timeout(3000)
    assert page.evaluate("window.pwned === undefined") and page.locator("img[src='x']").count() == 0
    page.screenshot(path=pictures(tmp_path) / f"hostile-{name}.png")
