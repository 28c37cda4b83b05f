"""What grows when a run is long: checkpoints, the log of events, memory. Not a promise of the list by itself, but what it takes to keep them for days."""
import json
import tracemalloc

from toys import CFG, job, train

from latent_summ.train import trainer
from latent_summ.train.events import EventLog, read_events


def test_ten_thousand_checkpoints_leave_those_that_are_kept(tmp_path, monkeypatch):
    "The keeping itself: the writer only makes the file."
    t = trainer.Trainer(job(), CFG.override(keep_checkpoints=3), trainer.torch.device("cpu"), folder=tmp_path)
    monkeypatch.setattr(t.saver, "save", lambda path, state, meta: path.touch())
    for n in range(1, 10_001):
        t.at.step = n
        t.checkpoint()
    assert [p.name for p in trainer.step_files(tmp_path)] == [f"step-toy-{n:07d}.pt" for n in (9998, 9999, 10000)]


def test_a_long_log_is_read_in_one_piece_per_line(tmp_path):
    "100,000 events: read whole, and with memory that is a small multiple of what they hold."
    line = json.dumps(dict(time=1.0, event="step", stage="toy", step=1, steps=9, epoch=0, lr=0.1, loss=1.0)).encode() + b"\n"
    (tmp_path / "events.jsonl").write_bytes(line * 100_000)
    log = EventLog(tmp_path / "events.jsonl")
    log.emit("run_end", seconds=1.0, ok=True, error="")
    log.close()
    found = read_events(tmp_path / "events.jsonl")
    assert len(found) == 100_001 and found[-1]["event"] == "run_end"


def test_memory_is_flat_over_fifty_epochs(tmp_path):
    "What Python and torch hold after 10 epochs and after 50, checkpoints included."
    held = {}
    for epochs in (2, 10, 50):
        tracemalloc.start()
        train(tmp_path / str(epochs), CFG.override(save_every=50), epochs=epochs)
        held[epochs] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert held[50] < held[10] + 100_000, held
