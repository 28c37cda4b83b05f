"""Faults for tests and for the soak: a training in a process of its own, and everything that can happen to it from outside.

`start(cfg)` runs `latent_summ train` on a config; a `Fault` is done to it at a random moment; `check_end` says whether the way it ended is one of
those that are allowed. Random draws come from a seed that is printed (LATENT_SUMM_KILL_SEED repeats it).
"""
import json
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from latent_summ.config import Config

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("LATENT_SUMM_KILL_SEED", random.SystemRandom().randrange(10**6)))


# --- a training in a process of its own -------------------------------------------------------------------------------

def environment(**more) -> dict:
    "One thread (the bits of a sum depend on how many there are), offline, this repository's package."
    return os.environ | dict(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1", PYTHONPATH=str(ROOT)) | more


def command(cfg:Config, *more) -> list:
    cfg.save(Path(cfg.run_dir + ".json"))
    return [sys.executable, "-m", "latent_summ", "train", "--config", cfg.run_dir + ".json", *more]


def start(cfg:Config, *more, env=None, **options) -> subprocess.Popen:
    "Start, or go on with, a training; what it says goes to one file beside the run, one attempt after the other."
    def own(): # SIGINT is ignored where a shell started us in the background, and that would be inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    words = command(cfg, *more)
    with open(cfg.run_dir + ".log", "ab") as log:
        return subprocess.Popen(words, env=env or environment(), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=own, **options)


def said(cfg:Config, since:int=0) -> str: return Path(cfg.run_dir + ".log").read_bytes()[since:].decode(errors="replace")


def events(folder) -> list:
    "What the log says so far; a torn last line is left out."
    try: lines = (Path(folder) / "events.jsonl").read_bytes().split(b"\n")
    except FileNotFoundError: return []
    return [json.loads(line) for line in lines[:-1] if line]


def contents(folder) -> dict:
    "Every file below a folder with its bytes."
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def same(a, b) -> bool:
    "Whether two nested dicts and lists of tensors and plain values are equal to the last bit."
    import torch
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict): return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


# --- the clock --------------------------------------------------------------------------------------------------------

_CLOCK = """
import mmap, os, struct, time
_file = open(os.environ["SOAK_CLOCK"], "rb")
_map = mmap.mmap(_file.fileno(), 16, prot=mmap.PROT_READ)
def _shifted(real, at, unit):
    return lambda: real() + type(unit)(struct.unpack_from("<d", _map, at)[0] * unit)
time.time, time.time_ns = _shifted(time.time, 0, 1.0), _shifted(time.time_ns, 0, 10**9)
time.monotonic, time.monotonic_ns = _shifted(time.monotonic, 8, 1.0), _shifted(time.monotonic_ns, 8, 10**9)
time.perf_counter, time.perf_counter_ns = _shifted(time.perf_counter, 8, 1.0), _shifted(time.perf_counter_ns, 8, 10**9)
"""


class Clock:
    "The clock of a child process: `jump` moves the wall clock anywhere, and the monotonic clock onwards, as a machine that slept does."
    def __init__(self, folder):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_CLOCK)
        (folder / "clock").write_bytes(bytes(16))
        with open(folder / "clock", "r+b") as f: self.map = mmap.mmap(f.fileno(), 16)
        self.env = dict(PYTHONPATH=f"{folder}{os.pathsep}{ROOT}", SOAK_CLOCK=str(folder / "clock"))

    def jump(self, draw:random.Random):
        _, slept = struct.unpack("<dd", self.map[:])
        self.map[:] = struct.pack("<dd", draw.choice([-3e8, -86400.0, -30.0, 0.0, 30.0, 86400.0, 3e8]), slept + draw.choice([0.0, 5.0, 86400.0]))


# --- faults -----------------------------------------------------------------------------------------------------------

def stop_and_continue(p:subprocess.Popen, draw:random.Random, clock:Clock):
    p.send_signal(signal.SIGSTOP)
    time.sleep(draw.uniform(0.1, 2))
    p.send_signal(signal.SIGCONT)


def interrupt_twice(p:subprocess.Popen, draw:random.Random, clock:Clock):
    p.send_signal(signal.SIGINT)
    time.sleep(draw.uniform(0, 0.5))
    if p.poll() is None: p.send_signal(signal.SIGINT)


def full_disk(p:subprocess.Popen, draw:random.Random, clock:Clock):
    "From now on no file of this process may grow beyond a size drawn at random."
    resource.prlimit(p.pid, resource.RLIMIT_FSIZE, (draw.randrange(0, 3_000_000), resource.RLIM_INFINITY))


FAULTS = {"SIGKILL": lambda p, draw, clock: p.kill(), "SIGTERM": lambda p, draw, clock: p.terminate(),
          "SIGINT": lambda p, draw, clock: p.send_signal(signal.SIGINT), "SIGINT twice": interrupt_twice,
          "SIGSTOP and SIGCONT": stop_and_continue, "full disk": full_disk, "clock jump": lambda p, draw, clock: clock.jump(draw)}
GOES_ON = ("SIGSTOP and SIGCONT", "clock jump")  # the process is expected to notice nothing
ALLOWED = {"SIGKILL": {-9}, "SIGTERM": {-15, 130}, "SIGINT": {-2, 130}, "SIGINT twice": {-2, 130}, "full disk": {1}}


def wrong_end(status:int, done:set, words:str) -> str:
    "What is wrong with how an attempt ended, after the faults `done`; nothing where it is as it should be."
    allowed = {0}.union(*(ALLOWED.get(d, set()) for d in done))
    if status not in allowed: return f"status {status} after {', '.join(sorted(done)) or 'no fault'}"
    if status == 1 and "error:" not in words: return "status 1 without a message"
    if status in (1, 130) and "Traceback" in words and "run_start" in words: return "a traceback where a message was due"
    return ""


# --- a part of the package in a forked process ------------------------------------------------------------------------

def in_child(f) -> int:
    "Run `f` in a forked process; its exit status: 0, 1 after an exception (its text goes to stderr), or minus the signal that ended it."
    pid = os.fork()
    if not pid:
        try: f()
        except BaseException as e: sys.stderr.write(f"{type(e).__name__}: {e}\n"); sys.stderr.flush(); os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def deadly(n:int, sign:int=signal.SIGKILL):
    "From now on this process dies at the n-th of: a file made durable, a file renamed (before and after), a file removed."
    calls = [0]
    def at(real, after):
        def call(*args, **kw):
            calls[0] += 1
            if calls[0] == n: os.kill(os.getpid(), sign)
            out = real(*args, **kw)
            calls[0] += after
            if after and calls[0] == n: os.kill(os.getpid(), sign)
            return out
        return call
    os.fsync, os.replace, os.unlink = at(os.fsync, 0), at(os.replace, 1), at(os.unlink, 0)


def killed_everywhere(make, most:int=200):
    "Yield n after `make(n)` was killed at its n-th write point, for n = 1, 2, ... until it survives; that last one too."
    for n in range(1, most):
        def run(n=n): deadly(n); make(n)
        status = in_child(run)
        yield n
        if status != -signal.SIGKILL: assert status == 0, status; return
    raise AssertionError(f"more than {most} write points")


def limited(f, size:int) -> int:
    "Run `f` in a forked process in which no file can grow beyond `size` bytes; its exit status."
    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        f()
    return in_child(run)


def leftovers(folder) -> list: return [p.name for p in Path(folder).rglob("*") if p.name.endswith(".tmp")]
