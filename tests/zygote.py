"""A Python that starts at once: processes are forked from one that has imported torch, transformers and the like already.

    with Zygote() as zygote:
        p = zygote.start(["-m", "pytest", "tests/test_cache.py"], env, output)  # what stands after `python`
        status = p.wait(timeout=60)

Starting Python and importing these takes five seconds of a core, more than most notebooks need for themselves. Each process
is a real one: it has its own group, can be killed, and ends with a status; the package itself (`latent_summ`) is imported by
each one anew. It ends as the processes of multiprocessing do: exit handlers run, the interpreter is not taken apart.
Variables that are read when a library is imported (HF_ENDPOINT, OMP_NUM_THREADS ...) must be those of the zygote.
Linux only: elsewhere a process that has imported torch cannot safely be forked.
"""
import array
import atexit
import gc
import importlib
import json
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "LATENT_SUMM_ZYGOTE"  # the variable that names the socket to the processes inside
BEFORE_HUB = """numpy torch torch.distributed.tensor torch._dynamo torch.distributed.checkpoint.hf_storage torch.distributed.fsdp
    pandas pyarrow.dataset matplotlib.pyplot rich.console yaml tqdm.auto fsspec multiprocess dill tyro nltk rouge_score.rouge_scorer""".split()
MODULES = [*BEFORE_HUB, *"""transformers transformers.modeling_utils transformers.models.auto.modeling_auto
    transformers.models.gemma3.modeling_gemma3 transformers.models.bert.modeling_bert transformers.models.llama.modeling_llama
    transformers.models.gpt2.modeling_gpt2 transformers.models.modernbert.modeling_modernbert tokenizers safetensors.torch datasets matplotlib_inline.backend_inline
    IPython execnb.shell nbdev.test pytest _pytest.assertion.rewrite hypothesis.internal.observability ipywidgets""".split()]
READ_AT_IMPORT = re.compile(r"(OMP_|MKL_|TORCH|PYTORCH|PYTHON|LD_|CUDA|MPL|XDG_CACHE).*|HOME|PATH|LC_ALL|LANG")
READ_BY_HUB = re.compile(r"(HF_|TOKENIZERS_).*")
NOT_READ = {"TORCHINDUCTOR_CACHE_DIR", "PYTHONPATH", "PYTHONUNBUFFERED", "HF_TOKEN"}  # set by torch itself; obeyed; read when used


PYTHONPATH = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # of the zygote


def is_possible() -> bool: return sys.platform == "linux"


def different(env: dict[str, str], own: dict[str, str], hub: bool = True) -> list[str]:
    "The variables that libraries (with `hub`, those of the hub too) read at import, and that are not the same in both."
    def is_read(name): return READ_AT_IMPORT.fullmatch(name) or hub and READ_BY_HUB.fullmatch(name)
    return sorted(name for name in (env.keys() | own.keys()) - NOT_READ if is_read(name) and env.get(name) != own.get(name))


# --- the side that asks ----------------------------------------------------------------------------------------------

class OtherVariables(Exception):
    "The process would need another zygote."


class Fresh(subprocess.Popen):
    "`python WORDS`, started as usual, with the face of `Process`."
    seconds = 0.0

    def __init__(self, words: list, env: dict[str, str] | None = None, output: int | None = None, cwd: Path | str = ROOT,
                 errors: int | None = None, stdin: int | None = None):
        files = dict(stdin=subprocess.DEVNULL if stdin is None else stdin, stdout=subprocess.DEVNULL if output is None else output,
                     stderr=subprocess.STDOUT if errors is None else errors)
        super().__init__([sys.executable, *map(str, words)], env=env, cwd=cwd, start_new_session=True, **files)

    def send_signal(self, sign: int):
        "To the process and all that it has started, and to what it left behind."
        try: os.killpg(self.pid, sign)
        except ProcessLookupError: pass


class Process:
    "A process that the zygote has started, with the part of subprocess.Popen's face that tests use."
    def __init__(self, words: list[str], connection: socket.socket):
        self.args = words
        self.connection = connection
        self.answers = connection.makefile("r", encoding="utf-8")
        self.returncode = None
        self.seconds = 0.0  # of processor time, its ended children included
        answer = self._next()
        if "error" in answer: raise OtherVariables(answer["error"])
        self.pid = answer["pid"]

    def _next(self) -> dict:
        line = self.answers.readline()
        if not line: raise RuntimeError("the process that starts others has ended")
        return json.loads(line)

    def wait(self, timeout: float | None = None) -> int:
        "The status, as subprocess gives it (-9: killed); raises TimeoutExpired after `timeout` seconds."
        if self.returncode is None:
            ready, _, _ = select.select([self.connection], [], [], timeout)
            if not ready: raise subprocess.TimeoutExpired(self.args, timeout)
            answer = self._next()
            self.seconds = answer["seconds"]
            self.returncode = answer["status"]
            self.answers.close()
            self.connection.close()
        return self.returncode

    def poll(self) -> int | None:
        try: return self.wait(0)
        except subprocess.TimeoutExpired: return None

    def send_signal(self, sign: int):
        "To the process and all that it has started."
        if self.poll() is not None: return
        try: os.killpg(self.pid, sign)
        except ProcessLookupError: pass  # it has just ended

    def kill(self): self.send_signal(signal.SIGKILL)


class Zygote:
    """The one process that imports everything; with `address` that of somebody else.

    One from before the hub has not imported what reads HF_ENDPOINT, HF_HOME and the like: those may differ from process to process."""
    def __init__(self, env: dict[str, str] | None = None, address: str = "", before_hub: bool = False):
        self.server = None
        self.address = address
        if not address:
            self.folder = tempfile.TemporaryDirectory(prefix="zygote-")
            self.address = f"{self.folder.name}/socket"
            words = [sys.executable, str(Path(__file__).resolve()), self.address, *["--before-hub"][:before_hub]]
            self.server = subprocess.Popen(words, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            if self.server.stdout.readline() != b"ready\n": raise RuntimeError("the process that starts others did not start")

    def start(self, words: list, env: dict[str, str] | None = None, output: int | None = None, cwd: Path | str = ROOT,
              errors: int | None = None, stdin: int | None = None) -> Process:
        "Start `python WORDS`; output, errors and stdin are open files by number (errors go to the output, stdin is empty)."
        with open(os.devnull, "r+b") as null:
            files = [null.fileno() if stdin is None else stdin, null.fileno() if output is None else output]
            files.append(files[1] if errors is None else errors)
            request = dict(words=[str(w) for w in words], env=dict(os.environ if env is None else env), cwd=str(cwd))
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.address)
            data = json.dumps(request).encode()
            header = len(data).to_bytes(8, "big")
            connection.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
            connection.sendall(data)
        return Process(request["words"], connection)

    def close(self):
        "End it; what it has started goes on."
        if self.server is None: return
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()
        self.folder.cleanup()

    def __enter__(self): return self

    def __exit__(self, *error): self.close()


# --- the side that forks ---------------------------------------------------------------------------------------------

def receive(connection: socket.socket) -> tuple[dict, list[int]]:
    "One request, and the files that come with it."
    files = array.array("i")
    header, extra, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * files.itemsize))
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS): files.frombytes(data)
    data = b""
    while len(data) < int.from_bytes(header, "big"): data += connection.recv(1 << 20)
    return json.loads(data), list(files)


def say(connection: socket.socket, **answer):
    try: connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError: pass  # whoever asked has ended


def prepare(request: dict, files: list[int], connection: socket.socket) -> list[str]:
    "Make the forked process what a fresh one is; returns the words."
    os.setsid()
    say(connection, pid=os.getpid())
    connection.close()
    for number, file in enumerate(files): os.dup2(file, number)
    for file in set(files): os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.__stdin__ = sys.stdin
    sys.__stdout__ = sys.stdout
    sys.__stderr__ = sys.stderr
    sys.modules["numpy"].random.seed()  # as the module random does by itself
    tempfile.tempdir = None
    return request["words"]


def watch(connection: socket.socket, pid: int):
    "Wait for the process, end what it left behind, and say how it ended; end it when whoever asked has gone."
    poller = select.poll()
    poller.register(connection, select.POLLHUP)
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if poller.poll(10): break  # milliseconds
    try: os.killpg(pid, signal.SIGKILL)  # not reaped yet, so that the number is still its own
    except ProcessLookupError: pass
    _, status, used = os.wait4(pid, 0)
    say(connection, status=os.waitstatus_to_exitcode(status), seconds=used.ru_utime + used.ru_stime)


def reap(seconds: float = 0):
    "Take note of watchers that have ended, or that end within so many seconds."
    end = time.monotonic() + seconds
    try:
        while os.waitpid(-1, os.WNOHANG)[0] or time.monotonic() < end: time.sleep(0.001)
    except ChildProcessError: pass


def threads() -> list[str]:
    "The threads of this process but the first, and but that of jemalloc, which takes care of itself when a process is forked."
    names = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    return [name for name in names if name != "jemalloc_bg_thd"]


def serve(address: str, own: dict[str, str], hub: bool) -> list[str]:
    "Fork a process for each request; returns only in such a process, with its words."
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener, 0], [], [], 1.0)
        reap()
        if 0 in ready: break  # whoever started this process closed its end
        if not ready: continue
        connection, _ = listener.accept()
        request, files = receive(connection)
        if names := different(request["env"], own, hub):
            say(connection, error=f"read at import, and not those of the zygote: {', '.join(names)}")
        elif not os.fork():
            listener.close()
            pid = os.fork()
            if not pid: return prepare(request, files, connection)
            for file in files: os.close(file)
            watch(connection, pid)
            os._exit(0)
        connection.close()
        for file in files: os.close(file)
    reap(1)  # so that their processor time is counted
    os._exit(0)


def main(words: list[str]):
    "What Python does with the words of its command line: `-m MODULE ...`, `-c CODE ...` or `SCRIPT ...`."
    sys.modules["__main__"] = types.ModuleType("__main__")
    asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    not_asked = {str(Path(__file__).parent), *PYTHONPATH}
    path = [*filter(None, asked), *(p for p in sys.path if p not in not_asked)]
    match words:
        case ["-m", module, *args]:
            sys.path[:] = [os.getcwd(), *path]
            sys.argv = [module, *args]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *args]:
            sys.path[:] = ["", *path]
            sys.argv = ["-c", *args]
            exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)  # noqa: S102
        case [script, *args]:
            sys.path[:] = [str(Path(script).parent), *path]
            sys.argv = [script, *args]
            runpy.run_path(script, run_name="__main__")


def status_of(words: list[str]) -> int:
    "Run the words, say what Python says about an error that nobody caught, and return the status."
    try: main(words)
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int): return e.code or 0
        print(e.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(status: int):
    "Leave as the processes of multiprocessing do, or by the signal as Python does after Ctrl-C."
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr): stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 255)


if __name__ == "__main__":
    own = dict(os.environ)
    before_hub = "--before-hub" in sys.argv
    for name in BEFORE_HUB if before_hub else MODULES: importlib.import_module(name)
    if before_hub and "huggingface_hub" in sys.modules: sys.exit("the hub's library has been imported")
    if lost := threads(): sys.exit(f"forking would lose these threads: {', '.join(lost)}")
    gc.collect()
    gc.freeze()
    end(status_of(serve(sys.argv[1], own, not before_hub)))
