"""No step is taken on a loss that is not finite: training stops and names the rows.

Attack: NaN, inf and -inf from the loss, in every batch of a training in turn; a gradient that is not finite in a single weight while the loss is fine.
Weights, optimizer and position must be those of the previous step, and the rows of that window must be named.
"""
import pytest
from faults import same
from toys import CPU, CFG, job

from latent_summ.config import LatentSummError
from latent_summ.train.trainer import Trainer, snapshot

ALSO = ["test_training.py::test_promise_14_what_is_not_a_number_is_never_stepped_on", "test_training.py::test_fp16_gradients_are_scaled_and_an_overflow_skips_the_step"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), "gradient"])
def test_in_every_batch(bad, attacks):
    for n in range(1, 28):
        calls = [0]
        def spoilt(plain, n=n, calls=calls):
            def loss(batch, progress):
                calls[0] += progress < 1  # validation has 1
                value, parts = plain(batch, progress)
                if calls[0] != n or progress == 1: return value, parts
                if bad != "gradient": return value * bad, parts
                w = t.job.model.part.weight[0, 0]  # noqa: B023
                return value + ((w - w.detach()) * 0).sqrt(), parts  # 0, and its gradient is 0 x inf
            return loss
        t = Trainer(job(spoilt), CFG, CPU)
        real, before = t._step, {}
        def remember(*a, t=t, real=real, before=before):
            before.update(snapshot(dict(model=t.job.model.state_dict(), optimizers=[o.state_dict() for o in t.optimizers], at=dict(vars(t.at)))))
            real(*a)
        t._step = remember
        with pytest.raises(LatentSummError, match=r"became (nan|-?inf) in toy at step|became (nan|-?inf).*Rows: \['row"): t.run()
        assert same(before, dict(model=t.job.model.state_dict(), optimizers=[o.state_dict() for o in t.optimizers], at=vars(t.at)))
    attacks(27)
