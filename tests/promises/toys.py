"""A training of milliseconds with everything that can be lost: dropout, two batches for each step, rows of unequal length, AdamW, validation."""
import torch

from latent_summ.train import rows as rows_module, trainer
from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.config import Config
from latent_summ.runtime import CheckpointError

CPU = torch.device("cpu")
CFG = Config(device="cpu", use_bf16=False, batch_size=2, gradient_accumulation_steps=2, warmup_steps=2, learning_rate=1e-2, save_every=2, keep_checkpoints=2)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.part, self.drop, self.fixed = torch.nn.Linear(4, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 4)
    def forward(self, x): return self.part(self.drop(self.fixed(x)))


def job(loss=None, epochs:int=3, n:int=18, net=None) -> trainer.Job:  # net: makes one
    torch.manual_seed(0)
    net, g = (net or Net)(), torch.Generator().manual_seed(1)
    targets = [[1 + i % 5] * (1 + i % 7) for i in range(n)]
    def plain(batch, progress):
        out, want = net(batch["inputs"]), batch["labels"]
        mask = want != -100
        return ((out.mean((1, 2))[:, None] - want.clamp(min=0) / 5).pow(2) * mask).sum() / mask.sum(), {}
    rows = rows_module.StageRows(torch.randn(n, 1, 4, generator=g), targets=targets, ids=[f"row{i}" for i in range(n)])
    return trainer.Job("toy", net, ("part", "drop"), rows, loss and loss(plain) or plain, epochs, CFG.batch_size, rows.take(list(range(6))))


def train(folder=None, cfg=CFG, saver=None, resume:bool=False, loss=None, log=None, **more) -> trainer.Trainer:
    "Train the toy to its end, from the newest undamaged checkpoint in `folder` if `resume`."
    made = job(loss, **more)
    torch.manual_seed(7)
    t = trainer.Trainer(made, cfg, CPU, log, saver, folder)
    if resume and (newest := newest_step(folder)): t.restore(newest)
    t.run()
    t.checkpoint()
    t.saver.wait()
    return t


def newest_step(folder):
    for path in reversed(trainer.step_files(folder)):
        try: load_checkpoint(path)
        except CheckpointError: continue
        return path


def state(t) -> dict:
    "Everything a resumed run could have lost."
    return dict(model=t.job.model.state_dict(), optimizers=[o.state_dict() for o in t.optimizers], at=vars(t.at), best=t.best_weights, rng=torch.get_rng_state())
