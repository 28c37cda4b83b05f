"""The terminal view on real terminals: nothing wraps, nothing is lost, and the terminal works afterwards."""
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from latent_summ.config import STAGES, Config
from latent_summ.train.run_state import RunState
from latent_summ.ui.picture import panel
from latent_summ.ui.tui import LineView, LiveView

pexpect = pytest.importorskip("pexpect", reason="needs a pseudo-terminal")
ROOT = Path(__file__).resolve().parent.parent

HIDE, SHOW, OTHER_SCREEN = "\x1b[?25l", "\x1b[?25h", "\x1b[?1049h"
TOY = """
import os, signal, sys, time, logging
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with SIGINT ignored
from latent_summ.config import Config, STAGES
from latent_summ.ui.tui import LiveView, view_for

def start(stage, steps=100): return dict(event="stage_start", stage=stage, step=0, steps=steps, epochs=2, rows=1000, batch_size=20)

def step(stage, i, steps=100):
    return dict(event="step", stage=stage, step=i, steps=steps, epoch=i // 51, lr=1e-5 * i, grad_norm=5.0 / i, rows_per_s=5100.0, tokens_per_s=41000.0,
                loss=3.0 / i + 0.1, cross_entropy=3.0 / i, memory_mb=1500.0)

def run(view, steps=100, stages=STAGES, pause=0.0):
    view(dict(event="run_start", config=Config(run_dir="runs/toy").__dict__, resumed=False))
    view(dict(event="preprocess", source="pairs/train", rows=1000, seconds=1.0))
    view(dict(event="plan", stages=[dict(stage=s, steps=steps) for s in stages]))
    for stage in stages:
        view(start(stage, steps))
        for i in range(1, steps + 1):
            view(step(stage, i, steps))
            time.sleep(pause)
            if i % 25 == 0: view(dict(event="validation", stage=stage, step=i, loss=3.0 / i + 0.2))
        view(dict(event="checkpoint", stage=stage, step=steps, path=f"step-{stage}-{steps:07}.pt", best=False))
        view(dict(event="stage_end", stage=stage, seconds=12.0, best_loss=0.3))
"""


def environment(**more) -> dict:
    plain = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")}
    return plain | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TERM="xterm-256color", PYTHONUTF8="1") | more


@pytest.fixture
def terminal(tmp_path):
    "Start Python code on a terminal of its own; what it writes is in `child.said`."
    children = []

    def start(code, rows=24, columns=80, **env):
        child = pexpect.spawn(sys.executable, ["-c", TOY + code], env=environment(**env), dimensions=(rows, columns), cwd=str(tmp_path),
                              encoding="utf-8", timeout=60, maxread=100_000)
        child.logfile_read = child.said = io.StringIO()
        child.said.name = "said"
        children.append(child)
        return child
    yield start
    for child in children: child.close(force=True)


def end(child) -> int:
    "Let a child finish; its exit status, or minus the signal that ended it."
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus if child.exitstatus is not None else -child.signalstatus


class Screen:
    "A terminal that knows the few codes rich writes; anything else is an error. `wraps`: lines too long for it since the cursor was hidden."
    def __init__(self, rows=24, columns=80):
        self.rows, self.columns, self.lines, self.y, self.x, self.wraps, self.visible, self.gone = rows, columns, [""] * rows, 0, 0, 0, True, []

    def down(self):
        self.y += 1
        if self.y == self.rows: self.gone.append(self.lines.pop(0)); self.lines.append(""); self.y -= 1

    def put(self, char):
        if self.x == self.columns: self.wraps += 1; self.x = 0; self.down()
        line = self.lines[self.y].ljust(self.x)
        self.lines[self.y], self.x = line[:self.x] + char + line[self.x + 1:], self.x + 1

    def code(self, what):
        if what.endswith("m"): return
        if what in ("?25l", "?25h"): self.visible, self.wraps = what == "?25h", 0 if what == "?25l" else self.wraps
        elif what == "2K": self.lines[self.y] = ""
        elif re.fullmatch(r"\d*A", what): self.y = max(self.y - int(what[:-1] or 1), 0)
        else: raise AssertionError(f"unexpected code {what!r}")

    def write(self, text):
        for m in re.finditer(r"\x1b\[([?\d;]*[A-Za-z])|(.)", text, re.S):
            if m[1]: self.code(m[1])
            elif m[2] == "\r": self.x = 0
            elif m[2] == "\n": self.down()
            else: self.put(m[2])
        return self

    @property
    def text(self): return "\n".join(line.rstrip() for line in self.lines).rstrip()

    @property
    def everything(self): return "\n".join(line.rstrip() for line in self.gone + self.lines)


def test_the_screen_of_these_tests():
    screen = Screen(3, 5).write("one\r\ntwo\r\n\x1b[1mthree\x1b[0m!")
    assert (screen.text, screen.gone, screen.wraps, screen.visible) == ("two\nthree\n!", ["one"], 1, True)
    assert screen.write("\r\x1b[2K\x1b[1A\x1b[2Knew\x1b[?25l").text == "two\nnew" and not screen.visible
    with pytest.raises(AssertionError): screen.write("\x1b[5B")


# --- a whole run -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rows,columns", [(24, 80), (50, 200), (12, 40), (5, 20)])
def test_a_run_fits_its_terminal(terminal, rows, columns):
    child = terminal("""
with view_for(Config()) as view:
    run(view, pause=0.004)
    print('a note')
    time.sleep(0.7)
    view(dict(event='run_end', seconds=9.0, ok=True))
""", rows, columns)
    assert end(child) == 0
    said = child.said.getvalue()
    screen = Screen(rows, columns).write(said)
    assert screen.wraps == 0 and screen.visible and OTHER_SCREEN not in said
    assert said.count(HIDE) == said.count(SHOW) == 1
    assert said.count("\x1b[2K") > 10  # it was drawn more than once
    assert screen.everything.count("a note") == 1 and "finished" in screen.everything
    assert "learning rate" not in screen.everything  # the picture is gone, the summary stays
    if columns >= 80: assert "learning rate" in said and "finetune adapter" in screen.text and "1,000 rows" in screen.everything


def test_what_the_picture_shows():
    state = RunState(clock=lambda: 100.0)
    names = dict(TOY=None)
    exec(compile(TOY, "toy", "exec"), names)  # noqa: S102
    for e in (names["start"](STAGES[0]), names["step"](STAGES[0], 50)): state(e)
    state(dict(event="checkpoint", path="step-7.pt"))
    state(dict(event="validation", stage=STAGES[0], step=50, loss=0.4321))
    text = "\n".join(line.plain for line in panel(state, 100.0, 79, 24))
    for part in ("pretrain middle", "epoch 1 of 2", "50/100 steps", "0.1600", "0.4321", "5.0e-04", "5,100", "41,000", "1.5 GB", "step-7.pt"): assert part in text, part


def test_resizing(terminal):
    child = terminal("""
with view_for(Config()) as view:
    run(view, stages=STAGES[:1])
    view(start(STAGES[1]))
    view(step(STAGES[1], 3))
    print('ready')
    time.sleep(2.5)
""", 50, 200)
    child.expect("ready")
    child.expect(" ago")
    assert max(map(len, Screen(50, 200).write(child.said.getvalue()).lines)) > 150
    child.setwinsize(16, 60)
    child.expect("run  ")  # a picture may be on its way that was made before
    child.expect("\x1b\\[2K")
    seen = len(child.said.getvalue())
    child.expect("run  ")
    assert end(child) == 0
    screen = Screen(16, 60).write("\n" * 16 + HIDE + child.said.getvalue()[seen:])
    assert screen.wraps == 0 and screen.visible and "not finished" in screen.text


def test_wiping_after_the_terminal_became_narrower():
    "Lines that the terminal has wrapped are wiped with all the rows they now take."
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40, _environ={})
    with LiveView(console, per_second=0.01) as view:
        view(dict(event="stage_start", stage="legacy", steps=9, epochs=1, rows=9, batch_size=1))
        view(dict(event="step", stage="legacy", step=1, steps=9, loss=1.0, lr=1e-3, grad_norm=1.0, rows_per_s=1.0))
        view.live.refresh()
        drawn = view.live.get_renderable().drawn
        assert max(drawn) > 50 and min(drawn) == 0
        before = len(console.file.getvalue())
        console.width = 50
        view.live.refresh()
        wiped = console.file.getvalue()[before:].split("legacy")[0].count("\x1b[2K")
        assert wiped == sum(max(1, -(-n // 50)) for n in drawn) > len(drawn)


# --- what goes wrong -------------------------------------------------------------------------------------------------

def test_an_error_is_shown_and_the_terminal_is_as_before(terminal):
    child = terminal("""
with view_for(Config()) as view:
    run(view, stages=STAGES[:1])
    view(start(STAGES[1]))
    time.sleep(0.6)
    raise RuntimeError('a real error')
""")
    assert end(child) == 1
    said = child.said.getvalue()
    screen = Screen().write(said)
    assert "RuntimeError: a real error" in screen.text and screen.visible and OTHER_SCREEN not in said
    assert "not finished: pretrain adapter" in screen.text
    assert said.rindex(SHOW) < said.index("Traceback")
    assert "learning rate" not in screen.text


def test_an_error_without_a_context_manager(terminal):
    child = terminal("view = view_for(Config())\nrun(view, stages=STAGES[:1])\ntime.sleep(0.6)\nraise RuntimeError('a real error')\n")
    assert end(child) == 1
    screen = Screen().write(child.said.getvalue())
    assert "RuntimeError: a real error" in screen.text and screen.visible


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_end_a_process(terminal, number):
    child = terminal("with view_for(Config()) as view:\n    run(view, stages=STAGES[:1])\n    print('ready')\n    time.sleep(60)\n")
    child.expect("ready")
    child.expect("ago")
    child.kill(number)
    assert end(child) == (-signal.SIGTERM if number == signal.SIGTERM else -signal.SIGINT)
    screen = Screen().write(child.said.getvalue())
    assert screen.visible and "learning rate" not in screen.text
    assert ("KeyboardInterrupt" in screen.text) == (number == signal.SIGINT)


def test_pausing_with_ctrl_z(terminal):
    "The picture goes away before the process stops, and comes back."
    child = terminal("with view_for(Config()) as view:\n    run(view, stages=STAGES[:1])\n    print('ready')\n    time.sleep(1.5)\n")
    child.expect("ready")
    child.expect("ago")
    child.kill(signal.SIGTSTP)
    child.expect(re.escape(SHOW))
    child.kill(signal.SIGCONT)
    child.expect(re.escape(HIDE))
    assert end(child) == 0
    assert Screen().write(child.said.getvalue()).visible


PIPELINE = """
from latent_summ.train.stages import run_pipeline
cfg = Config.preset("mini").override(messenger_rows=40, max_eval_samples=20, device="cpu", run_dir="run", preprocess_cache_dir="cache", batch_size=8,
                                     pretrain_middle_epochs=2000, pretrain_middle_batch_size=8)
with view_for(cfg) as view: run_pipeline(cfg, listeners=(view,))
"""


def test_ctrl_c_while_training(terminal):
    child = terminal(PIPELINE)
    child.expect("learning rate")
    child.sendintr()
    child.expect("Stopping after this step")
    assert end(child) == 1
    screen = Screen().write(child.said.getvalue())
    assert screen.visible and "Interrupted: Stopped in pretrain_middle" in screen.text
    assert "not finished: pretrain middle" in screen.everything and screen.everything.count("Stopping after this step") == 1


# --- what is printed in between --------------------------------------------------------------------------------------

def test_nothing_that_is_printed_is_lost(terminal):
    child = terminal("""
import threading, warnings
from latent_summ.runtime import say_once
log = logging.getLogger("other"); log.addHandler(logging.StreamHandler())
with view_for(Config()) as view:
    run(view, stages=STAGES[:1])
    for i in range(30): print(f"line-{i:02}."); say_once(f"said-{i:02}."); time.sleep(0.02)
    warnings.warn("warned-00.")
    log.warning("logged-00.")
    t = threading.Thread(target=lambda: [print(f"thread-{i:02}.") for i in range(30)]); t.start(); t.join()
    print("x" * 200)
    print("no-end-00.", end="")
""")
    assert end(child) == 0
    screen = Screen().write(child.said.getvalue())
    words = [f"{w}-{i:02}." for w in ("line", "said", "thread") for i in range(30)] + ["warned-00.", "logged-00.", "no-end-00."]
    assert [w for w in words if screen.everything.count(w) != 1 + (w == "warned-00.") * screen.everything.count('warn("warned-00.")')] == []
    assert screen.everything.replace("\n", "").count("x" * 200) == 1 and screen.wraps == 0


def test_another_progress_display_below(terminal):
    "Rich allows one live display at a time: a bar that starts later is drawn below the picture, not beside it."
    child = terminal("""
from latent_summ.encode.progress import EmbedProgress
with view_for(Config()) as view:
    run(view, stages=STAGES[:1])
    with EmbedProgress("embed", 10) as progress:
        progress.start -= 2 # nothing is shown before two seconds
        progress.expect(10, 100)
        for i in range(10): progress.advance(1, 10); time.sleep(0.1)
""")
    assert end(child) == 0
    assert "embed" in child.said.getvalue() and Screen().write(child.said.getvalue()).everything.count("embed") == 0


def test_forked_workers_print_and_end(terminal):
    child = terminal("""
with view_for(Config()) as view:
    run(view, stages=STAGES[:1])
    for i in range(20):
        pid = os.fork()
        if pid == 0:
            print("from a worker", flush=True)
            os._exit(0 if view.live is None and signal.getsignal(signal.SIGTERM) is not None else 1)
        assert os.waitpid(pid, 0)[1] == 0
""")
    assert end(child) == 0
    assert child.said.getvalue().count("from a worker") == 20


# --- where there is no live view -------------------------------------------------------------------------------------

LINES = "with view_for(Config(use_tui='off' not in sys.argv)) as view:\n    run(view, steps=5)\n    view(dict(event='run_end', seconds=1.0, ok=True))\n"


@pytest.mark.parametrize("env", [{}, dict(FORCE_COLOR="1"), dict(TTY_COMPATIBLE="1")])
def test_no_escape_codes_in_a_pipe(env):
    p = subprocess.run([sys.executable, "-c", TOY + LINES], capture_output=True, text=True, env=environment(**env))
    assert p.returncode == 0, p.stderr
    assert "\x1b" not in p.stdout + p.stderr and "\r" not in p.stdout and "validation" not in p.stderr
    assert "stage 4/4   finetune adapter: 5 steps" in p.stdout


def test_no_escape_codes_on_a_dumb_terminal(terminal):
    child = terminal(LINES, TERM="dumb")
    assert end(child) == 0 and "\x1b" not in child.said.getvalue() and "stage 4/4" in child.said.getvalue()


def test_no_tui(terminal):
    child = terminal(LINES.replace("'off' not in sys.argv", "False"))
    assert end(child) == 0
    screen = Screen().write(child.said.getvalue())
    assert "stage 4/4" in screen.text and HIDE not in child.said.getvalue() and screen.wraps == 0


def test_a_terminal_that_cannot_show_it(terminal):
    child = terminal(LINES, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert end(child) == 0
    assert HIDE not in child.said.getvalue() and "encoding ascii" in child.said.getvalue()


def test_no_color(terminal):
    code = "with view_for(Config()) as view:\n    run(view, pause=0.001)\n    time.sleep(0.6)\n"
    colours = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])(?:;\d+)*m")
    plain, coloured = terminal(code, NO_COLOR="1"), terminal(code)
    assert end(plain) == end(coloured) == 0
    assert HIDE in plain.said.getvalue() and not colours.search(plain.said.getvalue()) and colours.search(coloured.said.getvalue())


# --- every kind of event ---------------------------------------------------------------------------------------------

def events_of(stage):
    yield dict(event="stage_start", stage=stage, step=0, steps=1, epochs=1, rows=2, batch_size=1)
    yield dict(event="step", stage=stage, step=1, steps=1, epoch=0, lr=0.0, grad_norm=0.0, rows_per_s=0.0, tokens_per_s=0.0, loss=0.0, a_new_part=1.0, a_word="x")
    yield dict(event="validation", stage=stage, step=1, loss=float("nan"))
    yield dict(event="verdict", stage=stage, text="the decoder side is fine")
    yield dict(event="checkpoint", stage=stage, step=1, path="step.pt", best=False)
    yield dict(event="note", message="[bold]no markup[/bold]")
    yield dict(event="something new", anything=[1, 2])
    yield dict(event="stage_end", stage=stage, seconds=0.1, best_loss=None)


@pytest.mark.parametrize("name", ["legacy", "phase1", "phase2", "phase3", *STAGES, "a stage of tomorrow"])
def test_every_event_of_every_stage(name, capsys):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None, _environ={})
    with LiveView(console) as view, LineView(io.StringIO(), live=True) as lines:
        mode = dict(pipeline_mode="legacy") if name == "legacy" else dict(training_phase=name) if name.startswith("phase") else {}
        for e in [dict(event="run_start", config=Config(**mode).__dict__, resumed=False, processes=1), *events_of(name)]:
            view(e)
            lines(e)
            if view.live: view.live.refresh()
        assert view.state.stages[name].best is None  # not a number is not a best loss
        view(dict(event="run_end", seconds=1.0, ok=True))
    said = console.file.getvalue() + capsys.readouterr().out
    assert "the decoder side is fine" in said and "[bold]no markup[/bold]" in said and "finished after" in said and name.replace("_", " ") in said
