"""`latent_summ WORDS` in a process of its own that starts at once: it is forked from one that has imported torch already.

Starting Python and importing torch takes several seconds each time, which was most of the time of tests that kill and
resume. The process is a real one: it has its own group, can be killed, and ends with the status of the command.
Environment variables that are read at import (HF_ENDPOINT, PYTHONIOENCODING ...) must be the same for all; for others
use subprocess.
"""
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["latent_summ.ui.cli", "latent_summ.train.stages", "latent_summ.use.inference"])


def _run(words: list, variables: dict, output: str):
    "What the new process does."
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, also where the tests themselves ignore it
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # as in a fresh Python
    os.environ.update(variables)
    with open(output, "ab", buffering=0) as file:
        for stream in (1, 2): os.dup2(file.fileno(), stream)
    sys.stdin = open(os.devnull)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)
    from latent_summ.ui.cli import main
    main(words)


class Command:
    "A running command; output of stdout and stderr together, as text."
    def __init__(self, words: list, **variables):
        self.folder = tempfile.TemporaryDirectory()
        self.output = Path(self.folder.name) / "output"
        self.process = CONTEXT.Process(target=_run, args=([str(w) for w in words], variables, str(self.output)))
        self.process.start()

    def poll(self) -> int | None:
        "The status, as subprocess gives it (-9: killed), or None while it runs."
        return self.process.exitcode

    def kill(self, sign: int = signal.SIGKILL):
        "Send a signal to the process and its loaders."
        while self.poll() is None and os.getpgid(self.process.pid) != self.process.pid: time.sleep(0.001)  # before setsid
        if self.poll() is None: os.killpg(self.process.pid, sign)

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        "Wait for the end; raises TimeoutExpired after `timeout` seconds."
        self.process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise subprocess.TimeoutExpired("latent_summ", timeout)
        text = self.output.read_text(encoding="utf-8", errors="replace") if self.output.exists() else ""
        return subprocess.CompletedProcess(["latent_summ"], self.poll(), text, "")
