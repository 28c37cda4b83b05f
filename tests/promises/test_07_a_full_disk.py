"""A full disk keeps the last good checkpoint, cache, export and log, leaves no stray temporary files, and says so.

Attack: no file may grow beyond a limit drawn at random, everywhere the package writes: a training (checkpoints and events), an export, a report, latents.
Existing files must be unchanged, the process must report one of our own errors, and the same command must then continue to the same result.
"""
import json

import pytest
import torch
from faults import contents, leftovers, limited, same
from toys import CFG, newest_step, state, train

from latent_summ.train.checkpoint import Saver
from latent_summ.config import LatentSummError
from latent_summ.train.events import EventLog, read_events
from latent_summ.use.latents import read_latents, write_latents
from latent_summ.train.trainer import step_files

ALSO = ["test_cache.py::test_full_disk_keeps_what_is_finished", "test_training.py::test_promise_7_a_full_disk_keeps_the_last_good_checkpoint"]


def refused(f):
    "Call `f`, which has to fail with an error of ours that says why."
    def call():
        try: f()
        except LatentSummError as e: assert "File too large" in str(e) or "No space left" in str(e), e
        else: raise AssertionError("it went through")
    return call


def saved(folder, saver:Saver):
    "A training that lets its writer finish, as the pipeline does: what it was writing when the error came may be well on its way."
    try: train(folder, saver=saver)
    finally: saver.close()


@pytest.mark.parametrize("background", [False, True])
def test_a_training(background, tmp_path, draw, attacks):
    straight = state(train(tmp_path / "straight"))
    size = newest_step(tmp_path / "straight").stat().st_size
    for i in range(8):
        folder = tmp_path / str(i)
        train(folder, CFG.override(save_every=10), resume=False, epochs=3) if i % 2 else None
        before = {p.name: p.read_bytes() for p in step_files(folder)} if folder.exists() else {}
        limit = draw.randrange(size // 2)
        assert limited(refused(lambda folder=folder: saved(folder, Saver(background))), limit) == 0
        assert {p.name: p.read_bytes() for p in step_files(folder)} == before and not leftovers(folder)
        if not before: assert same(state(train(folder, resume=folder.exists())), straight)
    attacks(8)


def test_events(tmp_path, draw, attacks):
    "However little room is left: what is in the log stays readable, and it can be gone on with."
    for i in range(40):
        path = tmp_path / f"{i}.jsonl"
        log = EventLog(path)
        for n in range(3): log.emit("note", n=n)
        log.close()
        def more(path=path):
            log = EventLog(path)
            for n in range(3, 50): log.emit("note", n=n)
        assert limited(refused(more), path.stat().st_size + draw.randrange(200)) == 0
        log = EventLog(path)
        log.emit("note", n="after")
        log.close()
        found = [e["n"] for e in read_events(path)]
        assert found == [*range(len(found) - 1), "after"]
    attacks(40)


def test_a_line_torn_by_a_kill_does_not_spoil_the_log(tmp_path, attacks):
    log = EventLog(tmp_path / "whole.jsonl")
    for n in range(3): log.emit("note", n=n, text="é")
    log.close()
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for size in range(len(whole)):
        path = tmp_path / "events.jsonl"
        path.write_bytes(whole[:size])
        log = EventLog(path)
        log.emit("note", n="after")
        log.close()
        assert [e["n"] for e in read_events(path)] == [*range(whole[:size].count(b"\n")), "after"], size
    attacks(len(whole))


def test_latents(tmp_path, draw, attacks):
    made_by = dict(kind="document", normalized=False)
    path = write_latents(tmp_path / "a", torch.ones(2, 2, 4), made_by)
    before = contents(tmp_path)
    for limit in draw.sample(range(path.stat().st_size), 20):
        assert limited(refused(lambda: write_latents(path, torch.zeros(2, 2, 4), made_by)), limit) == 0
    assert contents(tmp_path) == before and read_latents(path).latents.all()
    attacks(20)


def test_what_a_kill_left_is_swept_up(tmp_path):
    "Killed while it wrote, again and again: the files of the last N steps stay, and nothing else."
    from faults import deadly, in_child
    for n in range(3, 12):
        in_child(lambda n=n: (deadly(n), train(tmp_path, resume=True)))
    train(tmp_path, resume=True)
    assert not leftovers(tmp_path) and len(step_files(tmp_path)) <= CFG.keep_checkpoints


def test_the_message_of_a_full_disk_is_one_line(tmp_path):
    said = tmp_path / "said"
    def run():
        try: train(tmp_path / "run")
        except LatentSummError as e: said.write_text(str(e)[:90])
    assert limited(run, 100) == 0
    assert said.read_text().startswith(("Cannot write", "A checkpoint could not be written")) and json.dumps(said.read_text()).count("\\n") == 0
