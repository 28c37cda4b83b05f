"""Resuming on a CPU is bit-identical: weights, optimizer, schedule, every random generator, stage, epoch and position in the shuffled order.

Attack: SIGKILL inside a random forward pass, or between the batches of an accumulation window, up to four times per training, in twelve trainings; and
(elsewhere) real trainings of the mini pair in each of their modes, killed after a random number of steps, twice in one epoch, from memory and streamed by
two loader processes. `make soak` does the same to the mini preset for half an hour. The last state must equal that of an undisturbed run.
"""
import os
import signal

from faults import in_child, same
from toys import state, train

ALSO = ["test_training.py::test_killed_anywhere_and_resumed_gives_the_same_weights", "test_training.py::test_streamed_rows_give_the_run_of_rows_in_memory_also_when_killed"]


def dies_at(n:int):
    "A loss that kills its process at its n-th call."
    calls = [0]
    def wrap(plain):
        def loss(batch, progress):
            calls[0] += 1
            if calls[0] == n: os.kill(os.getpid(), signal.SIGKILL)
            return plain(batch, progress)
        return loss
    return wrap


def test_killed_in_any_batch_up_to_four_times(tmp_path, draw, attacks):
    straight, kills = state(train(tmp_path / "straight")), 0
    for i in range(12):
        folder = tmp_path / str(i)
        for _ in range(draw.randrange(1, 5)):
            loss = dies_at(draw.randrange(1, 37))
            status = in_child(lambda loss=loss, folder=folder: train(folder, resume=folder.exists(), loss=loss))
            kills += status == -signal.SIGKILL
        assert same(state(train(folder, resume=folder.exists())), straight), i
    assert kills > 8
    attacks(kills)
