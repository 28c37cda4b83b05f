"""The forked processes that tests run in are real ones, and run_all.py counts truthfully what happens in them."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
import zygote

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not zygote.is_possible(), reason="forked on Linux only")


@pytest.mark.parametrize(("code", "status", "says"), [
    ("print('fine')", 0, "fine"), ("import sys; sys.exit(3)", 3, ""), ("import sys; sys.exit('no')", 1, "no"), ("1 / 0", 1, "ZeroDivisionError"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -11, ""), ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
    ("import sys; print(sys.stdin.read())", 0, "given"), ("import sys; print(sys.argv)", 0, "['-c', 'a word']"),
    ("import atexit; atexit.register(print, 'the end')", 0, "the end")])
def test_it_ends_as_a_python_of_its_own(code, status, says):
    words = ["-c", code, "a word"]
    done = forks.run(words, input="given")
    fresh = subprocess.run([sys.executable, *words], input="given", capture_output=True, text=True)
    assert done.returncode == fresh.returncode == status
    assert done.stdout == fresh.stdout and says in done.stdout + done.stderr


def test_it_has_torch_and_nothing_of_this_package():
    code = "import sys; print('torch' in sys.modules, [m for m in sys.modules if m.split('.')[0] == 'latent_summ'], __name__)"
    assert forks.run(["-c", code]).stdout == "True [] __main__\n"


def test_variables_and_folders_are_those_that_were_asked_for(tmp_path):
    (tmp_path / "mine.py").write_text("x = 5")
    code = "import mine, os; print(mine.x, os.environ['A_WORD'], os.getcwd(), os.environ.get('PYTEST_CURRENT_TEST'))"
    env = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} | dict(PYTHONPATH=str(tmp_path), A_WORD="b")
    assert forks.run(["-c", code], env, tmp_path).stdout == f"5 b {tmp_path.resolve()} None\n"


def test_what_libraries_read_at_import_is_never_another(tmp_path):
    "The hub's variables have a zygote that has not imported its library; for those of torch a new Python is started."
    with pytest.raises(zygote.OtherVariables, match="OMP_NUM_THREADS"): forks.server(False).start(["-c", ""], os.environ | dict(OMP_NUM_THREADS="3"))
    with pytest.raises(zygote.OtherVariables, match="HF_HOME"): forks.server(False).start(["-c", ""], os.environ | dict(HF_HOME="there"))
    assert forks.run(["-c", "import sys; print('torch' in sys.modules)"], os.environ | dict(OMP_NUM_THREADS="3")).stdout == "False\n"
    code = "from huggingface_hub import constants; print(constants.HF_HOME)"
    for home in ("one", "other"): assert forks.run(["-c", code], os.environ | dict(HF_HOME=str(tmp_path / home))).stdout == f"{tmp_path / home}\n"


def test_random_numbers_are_drawn_anew_and_torchs_are_those_of_a_new_python():
    code = "import random, numpy, torch; print(random.random(), numpy.random.rand(), sep='\\n'); print(torch.rand(1))"
    one, other = (forks.run(["-c", code]).stdout.splitlines() for _ in range(2))
    assert one[0] != other[0] and one[1] != other[1] and one[2] == other[2]


def is_alive(pid: int) -> bool: return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end: time.sleep(0.01)
    assert condition()


LEAVES_ONE_BEHIND = "import subprocess, sys; p = subprocess.Popen(['sleep', '1000']); open(sys.argv[1], 'w').write(str(p.pid))"


@pytest.mark.parametrize("how", ["it ends", "it is killed", "nobody waits"])
def test_nothing_is_left_behind(how, tmp_path):
    p = forks.start(["-c", LEAVES_ONE_BEHIND + ("" if how == "it ends" else "; p.wait()"), tmp_path / "pid"])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    if how == "it ends": assert p.wait(60) == 0
    elif how == "it is killed":
        with pytest.raises(subprocess.TimeoutExpired): p.wait(0.1)
        p.send_signal(signal.SIGTERM)
        assert p.wait(60) == -signal.SIGTERM
    else: del p
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


# --- run_all.py --------------------------------------------------------------------------------------------------------

def notebook(*codes: str) -> str:
    cells = [dict(cell_type="code", id=f"cell{i}", source=code, metadata={}, outputs=[], execution_count=None) for i, code in enumerate(codes)]
    return json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5))


FILES = {"good.ipynb": notebook("x = 1", "assert x == 1"), "bad.ipynb": notebook("x = 1", "assert x == 2"), "leaves.ipynb": notebook("import os; os._exit(0)"),
         "hangs.ipynb": notebook("import time; time.sleep(1000)"), "empty.ipynb": notebook(""),
         "test_mixed.py": "import pytest\ndef test_a(): pass\ndef test_b(): assert False\ndef test_c(): pytest.skip()\n",
         "test_crash.py": "import os\ndef test_a(): pass\ndef test_b(): os.kill(os.getpid(), 11)\n", "test_none.py": ""}


@pytest.mark.parametrize("fresh, timeout", [(False, 8), (True, 20)])
def test_everything_is_counted(fresh, timeout, tmp_path):
    for name, text in FILES.items(): (tmp_path / name).write_text(text)
    words = [sys.executable, ROOT / "tests/run_all.py", "--timeout", str(timeout), *["--fresh"][:fresh], tmp_path]
    done = subprocess.run(words, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    marks = {re.search(r"(\w+\.(ipynb|py))", line)[1]: line.split()[0] for line in lines if re.match(r"(ok|FAIL|skip) ", line)}
    assert marks == {"good.ipynb": "ok", "empty.ipynb": "skip"} | {name: "FAIL" for name in FILES if name not in ("good.ipynb", "empty.ipynb")}, done.stdout
    assert lines[-1] == "2 passed, 6 failed, 2 skipped" and done.returncode == 1
    assert any("hangs.ipynb" in line and f"still running after {timeout} s" in line for line in lines)
