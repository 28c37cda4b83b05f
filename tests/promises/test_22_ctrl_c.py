"""Ctrl-C saves at the next step and says how to continue; a second Ctrl-C quits at once.

Attack: SIGINT and SIGTERM in the middle of a training's steps, and a second one a random moment later, sixteen times, in processes of their own. The first
leaves a checkpoint from which the same state is reached; after the second the process ends within a step, and everything saved before is whole.
"""
import os
import signal
import threading
import time

from faults import in_child, same
from test_cache import embed_and_signal, shards_of_32, small
from toys import state, train

from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.runtime import Interrupted
from latent_summ.train.trainer import step_files

assert small and shards_of_32  # fixtures

ALSO = ["test_training.py::test_ctrl_c_saves_at_the_next_step_and_says_how_to_go_on", "test_cache.py::test_a_second_ctrl_c_quits_at_once",
        "test_cache.py::test_ctrl_c_finishes_the_shard_and_the_next_run_goes_on", "test_tui.py::test_ctrl_c_while_training"]


def interrupted(n:int, signs:list, twice:bool):
    "A loss that sends the first signal in its n-th call, and the second one while that call goes on."
    calls = [0]
    def wrap(plain):
        def loss(batch, progress):
            calls[0] += 1
            if calls[0] == n:
                os.kill(os.getpid(), signs[0])
                if twice:
                    threading.Timer(0.05, os.kill, (os.getpid(), signs[1])).start()
                    time.sleep(60)
            return plain(batch, progress)
        return loss
    return wrap


def test_one_and_two(tmp_path, draw, attacks):
    straight = state(train())
    for i in range(16):
        folder, n, twice, signs = tmp_path / str(i), draw.randrange(1, 27), i % 2 == 1, draw.choices([signal.SIGINT, signal.SIGTERM], k=2)
        def run(folder=folder, n=n, twice=twice, signs=signs):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try: train(folder, loss=interrupted(n, signs, twice))
            except Interrupted: os._exit(130)
            except KeyboardInterrupt: os._exit(2)
        began, status = time.monotonic(), in_child(run)
        assert status == ((-15 if signs[1] == signal.SIGTERM else 2) if twice else 130), (i, status)
        assert time.monotonic() - began < 50
        for p in step_files(folder) if folder.exists() else []: load_checkpoint(p)
        assert same(state(train(folder, resume=folder.exists())), straight)
    attacks(16)


def test_a_signal_in_the_last_shard_is_not_forgotten(tmp_path, small, shards_of_32):
    _, batches = embed_and_signal(small, shards_of_32, tmp_path / "straight")
    out, _ = embed_and_signal(small, shards_of_32, tmp_path / "signal", {batches: signal.SIGTERM})
    assert "then stopping" in out and "Interrupted" in out, out
