"""`python WORDS` in a process of its own that starts at once: it is forked from one that has imported torch already (zygote.py).

Starting Python and importing torch takes five seconds each time, which was most of the time of tests that start commands.
Where that cannot be (another system, another value of a variable that torch reads at import) a new Python is started.
"""
import atexit
import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import zygote

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def server(before_hub: bool) -> zygote.Zygote:
    "The process to fork from: that of run_all.py where it started this test, otherwise one of our own."
    address = "" if before_hub else os.environ.get(zygote.ADDRESS, "")
    made = zygote.Zygote(address=address, before_hub=before_hub)
    atexit.register(made.close)
    return made


def start(words: list, env: dict | None = None, *files, **options) -> zygote.Process | zygote.Fresh:
    "Start `python WORDS`; the rest is that of `Zygote.start`."
    env = dict(os.environ if env is None else env)
    if zygote.is_possible() and not zygote.different(env, os.environ, hub=False):
        before_hub = bool(zygote.different(env, os.environ))
        try: return server(before_hub).start(words, env, *files, **options)
        except zygote.OtherVariables: pass
    return zygote.Fresh(words, env, *files, **options)


def run(words: list, env: dict | None = None, cwd: Path | str = ROOT, input: str = "", timeout: float = 900) -> subprocess.CompletedProcess:
    "As `subprocess.run([sys.executable, *words], capture_output=True, text=True, ...)`."
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(input.encode())
        given.seek(0)
        p = start(words, env, out.fileno(), cwd, err.fileno(), given.fileno())
        try: p.wait(timeout)
        finally: p.kill()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return subprocess.CompletedProcess([sys.executable, *words], p.returncode, *texts)


class Command:
    "A running `latent_summ WORDS` (or another module's); output of stdout and stderr together, as text."
    def __init__(self, words: list, module: str = "latent_summ", **variables):
        self.output = tempfile.TemporaryFile()
        self.process = start(["-m", module, *words], os.environ | variables, self.output.fileno())

    def poll(self) -> int | None:
        "The status, as subprocess gives it (-9: killed), or None while it runs."
        return self.process.poll()

    def kill(self, sign: int = signal.SIGKILL):
        "Send a signal to the process and its loaders."
        self.process.send_signal(sign)

    def wait(self, timeout: float = 900) -> subprocess.CompletedProcess:
        "Wait for the end; raises TimeoutExpired after `timeout` seconds."
        try: self.process.wait(timeout)
        finally: self.process.kill()
        self.output.seek(0)
        text = self.output.read().decode("utf-8", "replace")
        self.output.close()
        return subprocess.CompletedProcess(["latent_summ"], self.poll(), text, "")
