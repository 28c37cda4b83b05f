"""A flipped bit is found, never loaded.

Attack: one bit flipped at random places in every kind of file that is read back as numbers: step checkpoints, exported models, latents, and (elsewhere)
every file of a cache. Loading fails, or returns exactly what was written (where the bit has no meaning, such as the zip's padding). Files for people are
text without a hash: in config.json, events.jsonl and report.json a changed digit is another digit.
"""
import pytest
import torch
from faults import same

from latent_summ.train.checkpoint import load_checkpoint, save_checkpoint
from latent_summ.config import LatentSummError
from latent_summ.use.latents import read_latents, write_latents

ALSO = ["test_cache.py::test_a_flipped_byte_is_found_in_every_file", "test_inference.py::test_a_flipped_byte_in_a_saved_folder_is_found"]
MADE_BY = dict(kind="document", normalized=False)


@pytest.mark.parametrize("kind", ["checkpoint", "latents"])
def test_a_flipped_bit(kind, tmp_path, draw, attacks):
    path = tmp_path / "a.pt"
    if kind == "checkpoint":
        save_checkpoint(path, dict(model=dict(w=torch.randn(20, 20), b=torch.arange(9)), optimizers=[dict(state={0: dict(step=torch.tensor(3.0))})]), dict(stage="x", step=3))
        read = lambda: load_checkpoint(path)
    else:
        write_latents(path, torch.randn(5, 4, 16), MADE_BY, list("abcde"))
        read = lambda: tuple(read_latents(path))
    good, data, found = read(), path.read_bytes(), 0
    for at in draw.choices(range(len(data)), k=600):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1:])
        try: assert same(read(), good), at
        except LatentSummError: found += 1
    assert found > 200
    attacks(600)
