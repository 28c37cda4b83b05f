"""Past one machine: two nodes train as one process, a split decoder gives the same gradients, and a cluster whose worker is killed makes the same cache.

The last one needs `pip install 'latent_summ[ray]'` and LATENT_SUMM_RAY=1."""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forks import Command

from latent_summ.encode import embed, scale
from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.config import Config
from latent_summ.model.head import prefix_loss
from latent_summ.model.model import LatentSummarizer
from latent_summ.runtime import Interrupted
from latent_summ.encode.scale import Pool, preprocess_ray, shard_decoder
from latent_summ.train.stages import run_pipeline

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict: return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


# --- two nodes --------------------------------------------------------------------------------------------------------

def small_run(folder:Path, shared:Path, **changes) -> Config:
    "The middle alone, from a cache: six optimizer steps, nothing random but the seed."
    few = dict(training_phase="phase3", messenger_rows=48, max_eval_samples=6, batch_size=8, num_epochs=2, warmup_steps=1, learning_rate=1e-3, optimizer="adamw",
               middle_transformer_layers=1, middle_dropout=0.0, use_stop_latent=False, use_bf16=False, device="cpu", use_tui=False)
    return Config.preset("mini").override(**few | dict(run_dir=str(folder), preprocess_cache_dir=str(shared / "cache")) | changes)


def test_two_nodes_train_as_one_process_with_twice_the_accumulation(tmp_path):
    one = small_run(tmp_path / "one", tmp_path, gradient_accumulation_steps=2)
    run_pipeline(one)
    two = small_run(tmp_path / "two", tmp_path, gradient_accumulation_steps=1)
    two.save(tmp_path / "two.json")
    port = random.SystemRandom().randrange(20000, 40000)
    def node(rank):
        return ["--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}",
                "-m", "latent_summ", "train", "--config", str(tmp_path / "two.json")]
    agents = [Command(node(rank), "torch.distributed.run", **environment()) for rank in range(2)]
    try: ended = [a.wait(300) for a in agents]
    finally:
        for a in agents: a.kill()
    said = [e.stdout for e in ended]
    assert [e.returncode for e in ended] == [0, 0], "\n\n".join(s[-3000:] for s in said)
    log = (tmp_path / "two" / "events.jsonl").read_text()
    assert '"processes": 2' in log and sum("Finished" in s for s in said) == 1
    a, b = (load_checkpoint(tmp_path / name / "checkpoints" / "best_model.pt")[0]["model"] for name in ("one", "two"))
    assert a.keys() == b.keys()
    fresh = {k for k in a if k.startswith("middle.")}
    assert fresh and all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
    three = small_run(tmp_path / "three", tmp_path, gradient_accumulation_steps=1)  # what one node alone would have made is something else
    run_pipeline(three)
    c = load_checkpoint(tmp_path / "three" / "checkpoints" / "best_model.pt")[0]["model"]
    assert not all(torch.allclose(a[k], c[k], atol=1e-5) for k in fresh)


# --- a decoder over two processes -------------------------------------------------------------------------------------

def batch_of(decoder, rank:int):
    "A prefix and labels that are this process' own."
    g = torch.Generator().manual_seed(rank)
    return decoder.embedding_rms * torch.randn(2, 5, decoder.hidden_size, generator=g), torch.randint(5, 200, (2, 7 + rank), generator=g)


def gradient(decoder, rank:int):
    "Loss, and gradient of the prefix."
    prefix, labels = batch_of(decoder, rank)
    loss, _ = prefix_loss(decoder, prefix.requires_grad_(), labels)
    loss.backward()
    return loss.detach(), prefix.grad


def held_bytes(module) -> int:
    "Bytes of a module's weights in this process now; of a weight that is split, this process's share."
    return sum((p.to_local() if hasattr(p, "to_local") else p).nbytes for p in module.parameters())


def one_of_two(rank:int, folder:Path):
    "Compute with a whole decoder, split it, and compute again."
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    decoder, most = load_decoder(Config.preset("mini").override(device="cpu")), [0]
    whole, layers = held_bytes(decoder.model), held_bytes(decoder.model.base_model.layers)
    loss, expected = gradient(decoder, rank)
    shard_decoder(decoder, torch.device("cpu"))
    with torch.inference_mode(): looked = prefix_loss(decoder, *batch_of(decoder, rank))[0]  # validation comes before the next step
    rest = held_bytes(decoder.model)
    def look(*_): most[0] = max(most[0], held_bytes(decoder.model))
    for layer in decoder.model.base_model.layers:
        layer.mlp.register_forward_hook(look)
        layer.mlp.register_full_backward_hook(look)
    for _ in range(2): again, got = gradient(decoder, rank)
    sizes = dict(whole=whole, layers=layers, rest=rest, most=most[0], after=held_bytes(decoder.model))
    torch.save(dict(loss=loss, again=again, looked=looked, expected=expected, got=got, **sizes), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_a_split_decoder_gives_the_same_gradients_and_is_never_whole(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), 2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for f in found:
        assert torch.allclose(f["loss"], f["again"], rtol=1e-6) and torch.allclose(f["loss"], f["looked"], rtol=1e-6)
        assert torch.allclose(f["expected"], f["got"], rtol=1e-5, atol=1e-7)
        assert f["rest"] <= f["whole"] - 0.45 * f["layers"] and f["after"] == f["rest"], f
        assert f["rest"] < f["most"] < f["whole"], {k: v for k, v in f.items() if isinstance(v, int)}
    assert not torch.equal(found[0]["got"], found[1]["got"])


def test_a_run_with_a_split_decoder_is_the_run_of_one_process(tmp_path):
    def cfg(name, **changes):
        few = dict(training_phase="phase1", messenger_rows=52, num_epochs=1, adapter_dropout=0.0)
        return small_run(tmp_path / name, tmp_path, **few | changes)
    one = cfg("one", gradient_accumulation_steps=4)
    run_pipeline(one)
    two = cfg("two", gradient_accumulation_steps=2, shard_decoder=True)
    two.save(tmp_path / "two.json")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "latent_summ", "train", "--config", str(tmp_path / "two.json")]
    done = subprocess.run([sys.executable, *words], env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    log = [json.loads(line) for line in (tmp_path / "two" / "events.jsonl").read_text().splitlines()]
    batches = -(-next(e["rows"] for e in log if e["event"] == "stage_start") // 8)
    assert batches % 4 == 3, f"{batches} batches: no process has to run a spare one that stands beside others"
    a, b = (load_checkpoint(tmp_path / name / "checkpoints" / "best_model.pt")[0]["model"] for name in ("one", "two"))
    fresh = [k for k in a if k.startswith("adapter.")]
    assert fresh and all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)
    started = LatentSummarizer(one, load_decoder(one).embedding_rms).state_dict()
    assert not any(torch.allclose(a[k], started[k], atol=1e-5) for k in fresh if a[k].ndim > 1)


# --- a cluster of two workers -----------------------------------------------------------------------------------------

@pytest.fixture
def two_workers(monkeypatch):
    "A Ray cluster on this machine with room for two workers, in which a shard has 32 rows, a part two shards, and a batch takes its time."
    if not os.environ.get("LATENT_SUMM_RAY"): pytest.skip("takes a minute and more: LATENT_SUMM_RAY=1 runs it")
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'latent_summ[ray]'")
    for k, v in dict(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", OMP_NUM_THREADS="1").items(): monkeypatch.setenv(k, v)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def small_and_slow():
        from latent_summ.encode import embed, scale
        embed.SHARD_ROWS, scale.SHARD_ROWS, scale.PART_SHARDS, batch = 32, 32, 2, embed.Embedder.batch
        def slow(self, ids): time.sleep(0.05); return batch(self, ids)
        embed.Embedder.batch = slow

    for module in (embed, scale): monkeypatch.setattr(module, "SHARD_ROWS", 32)
    monkeypatch.setattr(scale, "PART_SHARDS", 2)
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False, runtime_env=dict(worker_process_setup_hook=small_and_slow,
             env_vars={"PYTHONPATH": str(ROOT)}))
    yield ray
    ray.shutdown()


def files(folder) -> dict: return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}


def finished(folder:Path) -> dict:
    "The shards of unjoined parts that are listed as finished, by where they lie on the disk."
    found = {}
    for name in ("partial.json", "manifest.json"):
        for p in folder.glob(f"*.part-*/{name}"):
            try: listed = json.loads(p.read_text())["shards"]
            except FileNotFoundError: continue  # it has become a manifest just now
            for s in listed: found[(p.parent / s["name"]).stat().st_ino] = f"{p.parent.name}/{s['name']}"
    return found


def kill_one(folder:Path, killed:list, stop:threading.Event):
    "SIGKILL the first worker that is seen in the middle of a part."
    while not stop.is_set() and not killed:
        for lock in folder.glob("*.part-*/.lock"):
            if not (lock.parent / "partial.json").exists(): continue
            try: pid = int(lock.read_text().split()[1])
            except (FileNotFoundError, IndexError): continue
            before = finished(folder)
            os.kill(pid, signal.SIGKILL)
            killed.append((pid, before))
            return
        time.sleep(0.005)


def test_a_killed_worker_and_a_restarted_driver_repeat_unfinished_shards_only(tmp_path, two_workers, monkeypatch):
    cfg = Config.preset("mini").override(device="cpu", messenger_rows=600, max_eval_samples=20, run_pretraining=False, preprocess_cache_dir=str(tmp_path / "here"))
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    here = embed.preprocess(cfg, encoder, decoder)
    there, folder, stop, killed = cfg.override(preprocess_cache_dir=str(tmp_path / "there")), tmp_path / "there", threading.Event(), []
    thread = threading.Thread(target=kill_one, args=(folder, killed, stop), daemon=True)
    thread.start()
    advance, parts = scale.EmbedProgress.advance, [0]

    def stopped(self, texts, tokens):
        advance(self, texts, tokens)
        parts[0] += 1
        if parts[0] == 4: raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(scale.EmbedProgress, "advance", stopped)
        with pytest.raises(Interrupted, match="the same command continues from there"): preprocess_ray(there, encoder, decoder, pool=Pool(models=2))
    stop.set(); thread.join()
    assert killed, "no worker was seen in the middle of a part"
    before = killed[0][1] | finished(folder)
    assert len(before) >= 8
    made = preprocess_ray(there, encoder, decoder, pool=Pool(models=2))
    assert list(made) == list(here) and all(files(made[k].folder) == files(here[k].folder) for k in here)
    after = {p.stat().st_ino for c in made.values() for p in c.folder.iterdir()}
    assert not [name for inode, name in before.items() if inode not in after], "a finished shard was made again"
    assert not list(folder.glob("*.part-*"))
