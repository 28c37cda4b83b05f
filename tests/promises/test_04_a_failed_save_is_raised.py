"""A background save that fails is raised at the next save, at exit and at the end of training.

Attack: the k-th save of a training fails, for every k; the training must not end as if nothing had happened, must stop at the next save at the latest, and
must leave every earlier checkpoint unchanged.
"""
from unittest import mock

import pytest
from toys import CFG, train

from latent_summ.train import checkpoint
from latent_summ.train.checkpoint import Saver, load_checkpoint
from latent_summ.train.events import EventLog
from latent_summ.runtime import CheckpointError
from latent_summ.train.trainer import step_files

ALSO = ["test_training.py::test_promise_4_a_failed_background_save_is_raised"]


@pytest.mark.parametrize("background", [False, True])
def test_whichever_save_fails(background, tmp_path, attacks):
    cfg, real, heard = CFG.override(save_every=3, keep_checkpoints=99), checkpoint.save_checkpoint, []
    train(tmp_path / "whole", cfg)
    total = len(step_files(tmp_path / "whole"))
    for k in range(1, total + 1):
        count, saver = [0], Saver(background)
        def failing(*a, k=k, count=count):
            count[0] += 1
            if count[0] == k: raise CheckpointError("no space left")
            return real(*a)
        heard.clear()
        with mock.patch.object(checkpoint, "save_checkpoint", failing), pytest.raises(CheckpointError, match="no space left"):
            try: train(tmp_path / str(k), cfg, saver, log=EventLog(listeners=[heard.append]))
            finally: saver.thread and saver.jobs.put(None)
        steps = max(e["step"] for e in heard if e["event"] == "step")
        assert steps <= 3 * (k + 2)  # one save may already wait behind the one that fails
        for p in step_files(tmp_path / str(k)): load_checkpoint(p)
    attacks(total)
