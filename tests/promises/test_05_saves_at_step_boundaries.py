"""Saves happen between optimizer steps; a half-filled accumulation window is never lost silently.

Attack: a signal in every single batch of a training, SIGINT and SIGTERM in turn, inside accumulation windows and at the ends of epochs: each checkpoint
must belong to a complete step, and the training continued from it must end in the same state.
"""
import os
import signal

import pytest
from faults import in_child, same
from toys import CFG, newest_step, state, train

from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.runtime import Interrupted

ALSO = ["test_training.py::test_promise_5_a_save_lies_on_a_step_boundary"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_every_batch(sign, tmp_path, attacks):
    straight, cfg = state(train()), CFG.override(save_every=10_000)
    for n in (every := range(2 if sign == signal.SIGINT else 1, 36, 2)):
        calls = [0]
        def signals(plain, n=n, calls=calls):
            def loss(batch, progress):
                calls[0] += 1
                if calls[0] == n: os.kill(os.getpid(), sign)
                return plain(batch, progress)
            return loss
        def stopped(n=n):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with pytest.raises(Interrupted, match="--resume continues from here"): train(tmp_path / str(n), cfg, loss=signals)
        assert in_child(stopped) == 0, n
        at = load_checkpoint(newest_step(tmp_path / str(n)))[1]["position"]
        assert at["batch"] % 2 == 0 or at["batch"] == 9, at  # nine batches in an epoch: the last window holds one
        assert same(state(train(tmp_path / str(n), cfg, resume=True)), straight), n
    attacks(len(every))
