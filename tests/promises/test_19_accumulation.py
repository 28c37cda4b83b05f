"""Accumulation of k batches of b rows equals one batch of k x b rows, weighted by tokens.

Attack: gradients of windows of one to four batches of rows of unequal length, against one batch of all their rows, for random rows and weights; and (elsewhere)
two processes against one with twice the accumulation.
"""
import torch
from toys import CFG, CPU, job

from latent_summ.train.trainer import Trainer

ALSO = ["test_training.py::test_two_processes_train_as_one_with_twice_the_accumulation"]


def gradients(made, cuts) -> list:
    torch.manual_seed(0)
    t = Trainer(made, CFG, CPU)
    t.job.model.eval()  # dropout would draw other masks
    t._backward([made.rows.batch(c) for c in cuts])
    return [p.grad.clone() for _, p in t.named]


def test_gradients_are_those_of_one_batch(draw, attacks):
    for _ in range(40):
        index = draw.sample(range(18), draw.randrange(4, 13))
        k = draw.randrange(2, 5)
        cuts = [index[i::k] for i in range(k)]
        whole, parts = gradients(job(), [index]), gradients(job(), cuts)
        assert all(torch.allclose(a, b, atol=1e-7, rtol=1e-5) for a, b in zip(whole, parts)), (index, k)
    attacks(40)
