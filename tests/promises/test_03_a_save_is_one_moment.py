"""A checkpoint that is written in the background is a snapshot of one moment.

Attack: a writer so slow that the training is steps ahead of it; every file must hold what the same training writes without a background thread, optimizer
state and random generator included; and (elsewhere) parameters changed in place while the writer holds them.
"""
import time
from unittest import mock

from faults import same
from toys import CFG, train

from latent_summ.train import checkpoint
from latent_summ.train.checkpoint import Saver, load_checkpoint
from latent_summ.train.trainer import step_files

ALSO = ["test_training.py::test_promise_3_a_background_save_is_one_moment"]


def test_a_slow_writer_writes_what_a_quick_one_does(tmp_path, attacks):
    every, real, saver = CFG.override(save_every=1, keep_checkpoints=99), checkpoint.save_checkpoint, Saver()
    train(tmp_path / "at once", every)
    def slow(*a): time.sleep(0.05); return real(*a)
    with mock.patch.object(checkpoint, "save_checkpoint", slow):
        train(tmp_path / "slowly", every, saver)
        saver.close()
    names = [p.name for p in step_files(tmp_path / "at once")]
    assert names == [p.name for p in step_files(tmp_path / "slowly")] and len(names) > 10
    for name in names: assert same(load_checkpoint(tmp_path / "at once" / name), load_checkpoint(tmp_path / "slowly" / name)), name
    attacks(len(names))
