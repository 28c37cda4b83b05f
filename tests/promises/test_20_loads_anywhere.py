"""A checkpoint written compiled, or by several processes, loads anywhere: its keys carry no `_orig_mod.` or `module.`.

Attack: written compiled and continued without compilation, and the other way round, in the middle of a training; the models must be equal. And (elsewhere)
written by two processes and continued by one.
"""
from faults import same
from toys import CFG, CPU, Net, job, newest_step, state, train

from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.train.trainer import Trainer

ALSO = ["test_training.py::test_promise_20_a_compiled_model_has_plain_names", "test_training.py::test_two_processes_train_as_one_with_twice_the_accumulation"]


def compiled() -> Net:
    net = Net()
    net.part.compile(backend="eager")
    return net


def test_compiled_and_plain_go_on_with_each_other(tmp_path, attacks):
    straight = state(train())
    for i, (first, second) in enumerate([(Net, compiled), (compiled, Net), (compiled, compiled)]):
        train(tmp_path / str(i), CFG.override(save_every=4, keep_checkpoints=99), net=first)
        for p in sorted((tmp_path / str(i)).glob("*.pt"))[2:]: p.unlink()  # as if it had been killed there
        keys = list(load_checkpoint(newest_step(tmp_path / str(i)))[0]["model"])
        assert keys == list(Net().state_dict())
        t = Trainer(job(net=second), CFG, CPU, folder=tmp_path / str(i))
        t.restore(newest_step(tmp_path / str(i)))
        t.run()
        assert same(state(t), straight)
    attacks(3)
