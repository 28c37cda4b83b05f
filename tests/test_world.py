"""The caller's world: torch's modes, threads, streams, a hub's cache, the words of other libraries, and the reference's own files."""
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import latent_summ
from latent_summ.encode.backbones import MINI, damaged, locate
from latent_summ.config import Config, ConfigError, LatentSummError
from latent_summ.use.inference import Summarizer
from latent_summ.data.messenger import chats
from latent_summ.runtime import CheckpointError, ModelError, is_terminal, speak
from latent_summ.train.stages import run_pipeline

ROOT = Path(__file__).resolve().parent.parent
CLOSED = io.StringIO()
CLOSED.close()


class OnlyWrites:
    "A stream as some frameworks make it."
    def __init__(self): self.text = ""
    def write(self, text): self.text += text


class Full(io.StringIO):
    "A stream on a full disk."
    def write(self, text): raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def s(): return Summarizer.from_pretrained("mini", use_bf16=False, max_generation_length=16)


@pytest.fixture(scope="module")
def texts(): return [r["dialogue"] for r in chats(6, split="test")]


@pytest.fixture(scope="module")
def expected(s, texts): return everything(s, texts)


def everything(s, texts) -> dict:
    "What each public call gives for some texts."
    latents = s.encode(texts)
    summary = s.compress_meaning(latents)
    return dict(latents=latents, summary=summary, text=s.summarize(texts), decoded=s.decode(latents), stream="".join(s.stream(texts[0])),
                drawn=s.summarize(texts, do_sample=True, temperature=1.3, seed=5), nearest=s.nearest(texts[0], latents, 3), cosine=s.similarity(texts[:2], latents),
                between=s.interpolate(texts[0], texts[1], (0, 0.5)))


def same(found:dict, expected:dict):
    for name, value in expected.items():
        if not isinstance(value, torch.Tensor): assert found[name] == value, name
        else: assert found[name].dtype is torch.float32 and torch.equal(found[name], value) and not found[name].is_inference(), name


# --- ordinary tensors -------------------------------------------------------------------------------------------------

def test_what_comes_out_can_be_learned_from_and_changed(s, texts):
    for latents in (s.encode(texts), s.compress_meaning(s.encode(texts)), s.similarity(texts, texts)):
        head = torch.nn.Linear(latents.shape[-1], 1)
        head(latents).sum().backward()
        assert head.weight.grad.abs().sum() > 0
        latents += 1
        latents.requires_grad_().sum().backward()


# --- torch's modes ----------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try: yield
    finally: torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try: yield
    finally: torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try: yield
    finally: torch.set_default_device(None)


WORLDS = dict(autocast=lambda: torch.autocast("cpu", torch.bfloat16), half=lambda: torch.autocast("cpu", torch.float16), no_grad=lambda: torch.set_grad_enabled(False),
              inference=torch.inference_mode, float16=lambda: default_dtype(torch.float16), bfloat16=lambda: default_dtype(torch.bfloat16),
              float64=lambda: default_dtype(torch.float64), meta=lambda: default_device("meta"), cpu=lambda: default_device("cpu"), meta_block=lambda: torch.device("meta"),
              deterministic=deterministic)


@pytest.mark.parametrize("world", WORLDS)
def test_a_mode_of_the_caller_changes_nothing(s, texts, expected, world):
    with WORLDS[world]():
        before = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()
        same(everything(s, texts), expected)
        next(s.stream(texts[0]))  # left in the middle
        assert before == (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled())


@pytest.mark.parametrize("world", ["autocast", "inference", "float16", "float64", "meta"])
def test_a_model_loaded_inside_a_mode_is_the_same(texts, expected, world):
    with WORLDS[world](): loaded = Summarizer.from_pretrained("mini", use_bf16=False, max_generation_length=16)
    same(everything(loaded, texts), expected)


def test_default_dtypes_in_threads(s, texts, expected):
    with default_dtype(torch.float64), ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: s.encode(texts), range(8)): assert torch.equal(found, expected["latents"])
        assert torch.get_default_dtype() is torch.float64


TINY = dict(use_bf16=False, num_workers=0, messenger_rows=32, max_eval_samples=4, batch_size=16, pretrain_middle_max_samples=32, pretrain_middle_max_samples_wikitext=32,
            pretrain_adapter_max_samples=32, pretrain_adapter_max_samples_wikitext=32, pretrain_middle_epochs=1, pretrain_adapter_epochs=1, finetune_middle_epochs=1,
            finetune_adapter_epochs=1, max_generation_length=8)


def tiny(work:Path, **more) -> Config: return Config.preset("mini").override(run_dir=str(work / "run"), preprocess_cache_dir=str(work / "cache"), **TINY | more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    work = tmp_path_factory.mktemp("world")
    return run_pipeline(tiny(work))


def weights(run) -> dict:
    from latent_summ.train.checkpoint import load_finished
    return load_finished(run / "checkpoints" / "best_model.pt")[0]["model"]


def test_training_inside_modes_learns_the_same(run, tmp_path):
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), default_dtype(torch.float64): other = run_pipeline(tiny(tmp_path))
    for name, value in weights(run).items(): assert torch.equal(value, weights(other)[name]), name


# --- threads ----------------------------------------------------------------------------------------------------------

def test_a_seed_gives_the_same_in_eight_threads(s, texts):
    def draw(i):
        text, options = texts[i % 6], dict(do_sample=True, temperature=1.3, seed=i)
        return s.summarize(text, **options) if i % 3 else "".join(s.stream(text, **options))
    alone = [draw(i) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        noise = [pool.submit(s.summarize, texts[:2], do_sample=True) for _ in range(4)]  # somebody else samples without a seed
        assert list(pool.map(draw, range(24))) == alone
        for n in noise: assert len(n.result()) == 2


# --- streams ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stream", [None, CLOSED, OnlyWrites(), Full(), io.TextIOWrapper(io.BytesIO(), "ascii"),
                                    io.TextIOWrapper(io.BytesIO(), "cp1252")], ids=lambda x: type(x).__name__)
def test_no_stream_ends_the_work(s, texts, expected, stream):
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        speak("text → latents 🙂")
        assert not is_terminal(stream)
        assert s.summarize([*texts, None])[:6] == expected["text"]
        s.encode(texts, show_progress_bar=True)


def command(words:str, encoding:str="utf-8", **more) -> tuple:
    "Run `latent_summ WORDS` in a shell that may redirect; returns (status, stdout, stderr)."
    env = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONIOENCODING=encoding, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -m latent_summ {words}'], capture_output=True, env=env, timeout=200, **more)
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


@pytest.mark.parametrize(("words", "says"), [("config show >&-", "Standard output is closed"),
                                              ("config show >/dev/full", "Cannot write to standard output: No space left on device"),
                                              ("summarize --model mini <&-", "Standard input is closed")])
def test_closed_and_full_streams_are_one_message(words, says):
    status, _, err = command(words)
    assert status == 1 and says in err and err.count("\n") == 1 and "Traceback" not in err, err


def test_with_no_stream_at_all_the_status_says_it(): assert command("config show >&- 2>&- <&-")[0] == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_result_in_a_narrow_encoding_is_escaped_and_it_is_said_once(encoding, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(dict(dataset_name="цвет 🙂", run_dir="ё")), encoding="utf-8")
    status, out, err = command("config diff --config c.json", encoding, cwd=tmp_path)
    assert status == 0 and "\\u0446" in out and err.count("note:") == 1 and "PYTHONIOENCODING=utf-8" in err, (out, err)


# --- messages in the place of tracebacks ------------------------------------------------------------------------------

def snapshot(folder) -> dict: return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("change", "message"), [(dict(learning_rate=0.5), "learning_rate was 0.01, now 0.5"), (dict(batch_size=8), "batch_size was 16, now 8"),
                                                  (dict(max_seq_len=64, learning_rate=0.5), "learning_rate was"), (dict(adapter_flat_rank=3), "adapter_flat_rank was 160, now 3")])
def test_a_refused_resume_changes_nothing(run, change, message):
    cfg, before = tiny(run.parent), snapshot(run.parent)
    with pytest.raises(CheckpointError, match=message): run_pipeline(cfg.override(**change), resume=True)
    assert snapshot(run.parent) == before, "a refused resume wrote something"


def test_nothing_to_resume_makes_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no run in"): run_pipeline(tiny(tmp_path), resume=True)
    assert not any(tmp_path.iterdir())


def test_a_run_folder_whose_lock_cannot_be_opened(run):
    (run / ".lock").mkdir()
    try:
        with pytest.raises(LatentSummError, match="Cannot write in the run folder"): run_pipeline(tiny(run.parent), resume=True)
    finally: (run / ".lock").rmdir()


def test_one_of_several_processes_without_a_rank(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE=2 .*RANK.* not set: start them with torchrun"): run_pipeline(tiny(tmp_path))
    assert not any(tmp_path.iterdir())


def test_saving_onto_a_file(s, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for target in ("taken", "taken/below"):
        with pytest.raises(CheckpointError, match="taken"): s.save_pretrained(tmp_path / target)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_dangling_link_in_the_hub_cache(name, tmp_path, monkeypatch):
    import huggingface_hub
    folder = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    shutil.copytree(MINI / "decoder", folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "gone")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(folder))
    assert [p.name for p in damaged(folder)] == [name]
    with pytest.raises(ModelError, match="damaged: .* link to nothing.*--force-download"): locate("a/b", "decoder", "gpt2_model")


# --- the words of other libraries -------------------------------------------------------------------------------------

def test_names_of_the_package_load_nothing_before_they_are_used():
    code = "import sys, latent_summ; dir(latent_summ); assert 'torch' not in sys.modules; from latent_summ import Config; " \
           "assert 'torch' not in sys.modules; from latent_summ import Summarizer"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert latent_summ.Summarizer is Summarizer and latent_summ.Config is Config
    with pytest.raises(ImportError): from latent_summ import Summariser# noqa: F401


def test_the_kernel_caches_are_bounded_for_every_caller():
    "Also for one who has loaded torch before; a bound of the caller's own stays."
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    code = f"import os, latent_summ; print(*(os.environ[n] for n in {names}))"
    env = {k: v for k, v in os.environ.items() if k not in names} | dict(PYTHONPATH=str(ROOT))
    for own, expected in ({}, "32 32"), (dict(LRU_CACHE_CAPACITY="7"), "32 7"):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env | own)
        assert done.stdout.strip() == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what is resident")
@pytest.mark.parametrize("first", ["latent_summ, torch", "torch, latent_summ"])
def test_many_shapes_in_bf16_take_little_memory(first):
    "Whichever is imported first: 300 shapes leave the kernels of 32."
    code = f"""import {first}
def product(n): return torch.ones(n, 160).bfloat16() @ torch.ones(160, 160).bfloat16()
def resident(): return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1000
product(8)
before = resident()
for n in range(9, 309): product(n)
print(resident() - before)"""
    env = {k: v for k, v in os.environ.items() if not k.endswith("_CACHE_CAPACITY")} | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    assert float(done.stdout) < 60


def test_calls_as_in_sentence_transformers(s, texts, expected):
    array = s.encode(texts, batch_size=4, show_progress_bar=False, convert_to_numpy=True, device="cpu")
    assert type(array).__name__ == "ndarray" and abs(array - expected["latents"].numpy()).max() < 1e-5
    assert s.to("cpu") is s and s(texts) == expected["text"] and s(texts[0]) == expected["text"][0]
    cosines = s.similarity(texts, texts)
    assert cosines.shape == (6, 6) and torch.allclose(cosines.diagonal(), torch.ones(6), atol=1e-5) and torch.allclose(cosines, cosines.T, atol=1e-5)
    for device in ("cuda:99", "nowhere", torch.float16):
        with pytest.raises(ConfigError, match="no device of this machine"): s.to(device)
    assert str(s.device) == "cpu"


@pytest.mark.parametrize(("theirs", "ours"), [("max_new_tokens", "max_generation_length"), ("device_map", "device"), ("torch_dtype", "use_bf16"), ("cache_dir", "HF_HOME")])
def test_an_option_of_transformers_names_ours(s, texts, theirs, ours):
    for call in (lambda: s.summarize(texts, **{theirs: 3}), lambda: Summarizer.from_pretrained("mini", **{theirs: 3})):
        with pytest.raises(ConfigError, match=f"{theirs} .* here it is .*{ours}"): call()


@pytest.mark.parametrize(("option", "says"), [("convert_to_tensor", "convert_to_numpy"), ("normalize_embeddings", "similarity"), ("prompt", "as it is"), ("precision",
                                                            "save_latents"),
                                              ("truncate_dim", "latent_dim"), ("quantization_config", "GGUF"), ("load_in_8bit", "GGUF"), ("generation_config", "temperature")])
def test_an_option_that_is_not_here_says_what_is(s, texts, option, says):
    with pytest.raises(ConfigError, match=f"There is no {option} here.*{says}"): s.encode(texts, **{option: "x"})


@pytest.mark.parametrize("name", [None, 7, ["mini"]])
def test_a_model_that_is_no_name_is_one_message(name):
    with pytest.raises(CheckpointError, match=f"named by a path or a hub id, got a {type(name).__name__}"): Summarizer.from_pretrained(name)


def test_texts_in_any_container(s, texts, expected):
    import numpy as np
    import pandas as pd
    for some in (tuple(texts), (t for t in texts), np.array(texts), pd.Series(texts)): assert torch.equal(s.encode(some), expected["latents"]), type(some)
    assert s.encode([]).shape == (0, *expected["latents"].shape[1:]) and s([]) == []


# --- the reference's own files ----------------------------------------------------------------------------------------

THEIRS = dict(wikitext_split="train", arxiv_split="train", english_pretrain_split="train", wikitext_max_samples=100000, arxiv_max_samples=750000, english_pretrain_max_samples=None,
              preprocess_wikitext=True, preprocess_arxiv=True, preprocess_english_pretrain=False, cache_store_embeddings_fp16=False, cache_store_ideas_fp16=False,
              cache_store_ideas_int8=False, stop_latent_l2_threshold=None, pretrain_middle_max_samples_scitldr=None, pretrain_adapter_max_samples_english=None,
              pretrain_adapter_max_samples_scitldr=None, test_mode=None)


def test_a_config_that_the_reference_has_dumped_is_read(tmp_path):
    from latent_summ.sections import REFERENCE_SECTIONS
    import dataclasses
    documented = {f.name for section in REFERENCE_SECTIONS for f in dataclasses.fields(section)}
    dumped = {k: v for k, v in Config().__dict__.items() if k in documented} | dict(pretrain_adapter_epochs=24, batch_size=7, attn_implementation=None) | THEIRS
    assert len(THEIRS) == 17 and not set(THEIRS) & documented
    (tmp_path / "dumped.json").write_text(json.dumps(dumped))
    with pytest.warns(UserWarning) as said: cfg = Config.load(tmp_path / "dumped.json")
    assert (cfg.pretrain_adapter_epochs, cfg.batch_size, cfg.attn_implementation, cfg.english_pretrain_dataset) == (24, 7, "sdpa", "")
    assert (cfg.pretrain_middle_max_samples_wikitext, cfg.pretrain_adapter_max_samples_wikitext) == (100000, 100000)
    assert (cfg.pretrain_middle_max_samples_arxiv, cfg.pretrain_adapter_max_samples_arxiv) == (750000, 150000)
    assert len(said) == 1 and all(k in str(said[0].message) for k in ("wikitext_split", "stop_latent_l2_threshold", "test_mode"))
    status, out, err = command("config diff --config dumped.json", cwd=tmp_path)
    assert status == 0 and "batch_size = 7" in out and err.count("note:") == 1 and "cache_store_ideas_int8" in err, err


def test_a_file_of_our_own_is_read_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Config.load(Config.preset("mini").save(tmp_path / "mini.json")) == Config.preset("mini")


@pytest.mark.parametrize(("words", "nearest"), [("--mode inference --checkpoint m.pt", "latent_summ summarize --model m.pt"), ("--mode generate", "latent_summ summarize"),
                                                 ("--mode train --epochs 3 --no-fp16 --no-tui", "latent_summ train --num-epochs 3 --no-use-fp16 --no-use-tui"),
                                                 ("train --epochs=3", "latent_summ train --num-epochs=3"), ("--epochs 3 --no-tui", "latent_summ train --num-epochs 3 --no-use-tui"),
                                                 ("--no-fp16", "latent_summ train --no-use-fp16"), ("--checkpoint m.pt", "latent_summ summarize --model m.pt")])
def test_calls_of_its_readme_get_the_nearest_command(words, nearest):
    status, _, err = command(words)
    assert status == 1 and f"The nearest is: {nearest}" in err and "Traceback" not in err, err
