"""No dead parameter: for every field of the config, something that can be seen to change when it is set.

`EFFECTS` maps each field to a function that sets it and looks at the effect: a shape, a module's type, a file, a row count, a dtype,
an option passed on. A field without an entry fails the first test.
"""
import contextlib
import dataclasses
import functools
import io
import json
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from latent_summ.encode import backbones, embed, embedder, scale, tokens
from latent_summ.model import model
from latent_summ import runtime, plan
from latent_summ.runtime import ModelError
from latent_summ.data import sources
from latent_summ.train import lesson as lessons, objectives, rows as training_rows, run as runs, stages, teach, trainer
from latent_summ.config import Config, ConfigError
from latent_summ.model.decode import generate, generation_options, prompt_embeds
from latent_summ.train.objectives import latent_loss
from latent_summ.train.optim import make_optimizers

SCRATCH = Path(tempfile.mkdtemp(prefix="latent-summ-effects-"))
CPU = torch.device("cpu")
MINI = Config.preset("mini").override(messenger_rows=40, max_eval_samples=12, preprocess_cache_dir=str(SCRATCH / "cache"), run_dir=str(SCRATCH / "run"), device="cpu")
EFFECTS = {}


def effect(*names):
    "The decorated function shows the effect of these fields; it is called with the field's name."
    def register(f):
        for n in names:
            assert n not in EFFECTS
            EFFECTS[n] = f
        return f
    return register


# --- what the checks need, made once ----------------------------------------------------------------------------------

@functools.cache
def encoder(): return backbones.load_encoder(MINI, CPU)


@functools.cache
def decoder(): return backbones.load_decoder(MINI, CPU)


@functools.cache
def files() -> Path:
    "A dialogue source with splits and columns of other names, and three text sources."
    folder = SCRATCH / "files"
    folder.mkdir()
    def write(name, rows): (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    for split, n in (("fit", 30), ("check", 8), ("probe", 5)):
        write(f"talk.{split}.jsonl", [dict(id=f"{split}{i}", chat=f"A: number {i} of {split}\nB: fine", gist=f"It is {i}.") for i in range(n)])
    for name, n in (("one", 60), ("two", 50), ("three", 40)): write(f"{name}.train.jsonl", [dict(body=f"A text with the number {i} in {name}.", text="x") for i in range(n)])
    return folder


def with_files(**changes) -> Config:
    "The mini preset on these files."
    there = dict(dataset_name=str(files() / "talk"), train_split="fit", validation_split="check", test_split="probe", dialogue_column="chat",
                 summary_column="gist", text_column="body",
                 wikitext_dataset=str(files() / "one.train.jsonl"), arxiv_dataset=str(files() / "two.train.jsonl"), english_pretrain_dataset=str(files() / "three.train.jsonl"),
                 preprocess_cache_dir=str(SCRATCH / "cache-files"), pretrain_adapter_max_samples=None, pretrain_middle_max_samples=None)
    return MINI.override(**there | changes)


def keys(cfg) -> dict: return {key: len(rows) for key, _, _, rows in embed.needed_rows(cfg)}


def seeded(cfg) -> model.LatentSummarizer:
    torch.manual_seed(0)
    return model.LatentSummarizer(cfg)


def shapes(**changes) -> dict: return {k: tuple(v.shape) for k, v in seeded(Config(**changes)).state_dict().items()}


LATENTS = torch.nn.functional.normalize(torch.randn(3, 8, 256, generator=torch.Generator().manual_seed(1)), dim=-1)


def outputs(part, **changes):
    "What the middle or the adapter makes of fixed latents, with weights from a fixed seed."
    with torch.inference_mode(): return getattr(seeded(Config(**changes)).eval(), part)(LATENTS)


def differs(part, **changes): return not torch.allclose(outputs(part), outputs(part, **changes), atol=1e-4)


def jitter(part, **changes) -> bool:
    "Whether two passes in training mode differ."
    m = seeded(Config(**changes)).train()
    return not torch.equal(getattr(m, part)(LATENTS), getattr(m, part)(LATENTS))


def stage(cfg, name): return next(s for s in plan.stage_table(cfg) if s.name == name)


def rows_of(name, cfg=None, **there) -> int:
    "How many rows a stage takes from sources of 300,000 rows each."
    cfg = cfg or Config()
    given = {k: range(300_000 + i) for i, k in enumerate(("texts/wikitext/train", "texts/arxiv/train", "texts/english/train", "pairs/train"))} | there
    return sum(len(index) for _, index in training_rows.chosen_rows(cfg, stage(cfg, name), given))


class Small(torch.nn.Module):
    def __init__(self): super().__init__(); self.part = torch.nn.Linear(4, 4, bias=False)


def toy(cfg, n=24, log=None, folder=None, loss=None):
    "A trainer on a linear layer."
    m = Small()
    def square(batch, progress): return m.part(batch["inputs"]).pow(2).mean(), {}
    job = trainer.Job("toy", m, ("part",), training_rows.StageRows(torch.ones(n, 1, 4)), loss or square, 1, cfg.batch_size)
    return trainer.Trainer(job, cfg, CPU, log, folder=folder)


PLAIN = Config(device="cpu", use_bf16=False, optimizer="adamw", batch_size=4, gradient_accumulation_steps=1, warmup_steps=0)


def one_run(**changes) -> Path:
    "A whole small run with few rows; returns its folder."
    cfg = with_files(**dict(encoder_pooling="mean", max_train_samples=16, pretrain_adapter_epochs=1, finetune_middle_epochs=1, finetune_adapter_epochs=1, pretrain_middle_epochs=1,
                            english_pretrain_dataset="", arxiv_dataset="", batch_size=8, max_eval_samples=4) | changes)
    return stages.run_pipeline(cfg)


def cached(**changes):
    "A fresh cache of the file's dialogues."
    cfg = with_files(**dict(preprocess_cache_dir=tempfile.mkdtemp(dir=SCRATCH)) | changes)
    return embed.build_cache(cfg, encoder(), decoder(), name=cfg.dataset_name, split="train", rows=sources.load_pairs(cfg, "train"))


# --- the table --------------------------------------------------------------------------------------------------------

@effect("latent_dim")
def _(name): assert seeded(Config(latent_dim=128)).document_latents(torch.zeros(2, 1, 768)).shape == (2, 8, 128)


@effect("latent_seq_len")
def _(name): assert seeded(Config(latent_seq_len=4)).document_latents(torch.zeros(2, 1, 768)).shape == (2, 4, 256)


@effect("prefix_len")
def _(name): assert outputs("prefix", prefix_len=20).shape == (3, 20, 640)


@effect("modernbert_hidden_dim")
def _(name):
    assert shapes(modernbert_hidden_dim=96)["compression.hidden.weight"] == (96, 96)
    with pytest.raises(runtime.ModelError, match=r"160 wide but modernbert_hidden_dim=768.*--modernbert-hidden-dim 160"):
        backbones.load_encoder(MINI.override(modernbert_hidden_dim=768), CPU)


@effect("gpt2_hidden_dim")
def _(name):
    assert outputs("prefix", gpt2_hidden_dim=320).shape == (3, 50, 320)
    with pytest.raises(runtime.ModelError, match=r"160 wide but gpt2_hidden_dim=640.*--gpt2-hidden-dim 160"):
        backbones.load_decoder(MINI.override(gpt2_hidden_dim=640), CPU)


@effect("middle_hidden_dim")
def _(name): assert shapes(pipeline_mode="legacy", middle_hidden_dim=77)["middle.out.weight"] == (2048, 77)


@effect("middle_layers")
def _(name): assert len(seeded(Config(pipeline_mode="legacy", middle_layers=7)).middle.layers) == 7


@effect("middle_transformer_layers")
def _(name): assert len(seeded(Config(middle_transformer_layers=3)).middle.blocks) == 3


@effect("middle_num_heads")
def _(name): assert differs("summary_latents", middle_num_heads=2) and seeded(Config(middle_num_heads=2)).middle.blocks[0].attention.heads == 2


@effect("middle_ffn_multiplier")
def _(name): assert shapes(middle_ffn_multiplier=1.5)["middle.blocks.0.ffn.down.weight"] == (256, 384)


@effect("middle_dropout")
def _(name): assert jitter("summary_latents", middle_dropout=0.5) and not jitter("summary_latents", middle_dropout=0.0)


@effect("middle_use_rope")
def _(name): assert "middle.positions" in shapes(middle_use_rope=False) and "middle.positions" not in shapes()


@effect("adapter_num_heads")
def _(name): assert differs("prefix", adapter_num_heads=8) and seeded(Config(adapter_num_heads=8)).adapter.attention.heads == 8


@effect("adapter_dropout")
def _(name): assert jitter("prefix", adapter_dropout=0.5) and not jitter("prefix", adapter_dropout=0.0)


@effect("adapter_use_rope")
def _(name): assert differs("prefix", adapter_use_rope=False)


@effect("num_encoder_unfrozen_layers")
def _(name):
    def learning(n):
        cfg = MINI.override(pipeline_mode="legacy", num_encoder_unfrozen_layers=n)
        m = model.adopt_encoder(seeded(cfg), encoder().model, plan.tuned_layers(cfg))
        return sum(n.startswith("encoder_top") for n, _ in trainer.set_trainable(m, stage(cfg, "legacy").trains))
    assert 0 == learning(0) < learning(1) < learning(2)
    encoder().model.requires_grad_(False)


@effect("learning_rate")
def _(name): assert toy(PLAIN.override(learning_rate=0.125)).optimizers[0].param_groups[0]["lr"] == 0.125


@effect("batch_size")
def _(name): assert (toy(PLAIN).steps, toy(PLAIN.override(batch_size=12)).steps) == (6, 2)


@effect("gradient_accumulation_steps")
def _(name): assert toy(PLAIN.override(gradient_accumulation_steps=3)).steps == 2


@effect("max_seq_len")
def _(name): assert [len(tokens.input_ids(MINI.override(max_seq_len=n), encoder(), ["word " * 300])[0][0]) for n in (40, 90)] == [40, 90]


@effect("max_target_len")
def _(name): assert [len(tokens.target_ids(MINI.override(max_target_len=n), decoder(), ["word " * 300])[0]) for n in (7, 33)] == [7, 33]


def streamed(cfg): return training_rows.CachedRows([(cached(), range(12))], dict(inputs="embedding", labels="target_ids")).loader([[0, 1], [5, 6], [7, 8]], cfg)


@effect("num_workers", "prefetch_factor")
def _(name):
    loader = streamed(Config(num_workers=2, prefetch_factor=3))
    assert (len(loader._workers), loader._prefetch_factor) == (2, 3)
    assert [b["inputs"].shape for b in loader] == [b["inputs"].shape for b in streamed(Config(num_workers=0))] == [(2, 8, 160)] * 3


@effect("num_epochs")
def _(name):
    alone = Config(pipeline_mode="legacy", num_epochs=3), Config(training_phase="phase1", num_epochs=4)
    assert [plan.stage_table(c)[0].epochs for c in alone] == [3, 4]


@effect("warmup_steps")
def _(name):
    heard = []
    toy(PLAIN.override(warmup_steps=3, learning_rate=0.3), log=trainer.EventLog(listeners=[heard.append])).run()
    assert [round(e["lr"], 6) for e in heard if e["event"] == "step"][:3] == [0.1, 0.2, 0.3]


@effect("weight_decay")
def _(name): assert toy(PLAIN.override(weight_decay=0.5)).optimizers[0].param_groups[0]["weight_decay"] == 0.5


@effect("modernbert_model", "gpt2_model")
def _(name):
    what, load = dict(modernbert_model=("encoder", backbones.load_encoder), gpt2_model=("decoder", backbones.load_decoder))[name]
    with pytest.raises(runtime.ModelError, match=f"nobody/nothing.*--{name.replace('_', '-')} mini"), mock.patch("huggingface_hub.snapshot_download", side_effect=OSError):
        load(MINI.override(**{name: "nobody/nothing"}), CPU)
    assert load(MINI.override(**{name: str(backbones.MINI / what)}), CPU).identity["name"] == what


@effect("device")
def _(name):
    with mock.patch("torch.cuda.is_available", return_value=True), mock.patch("torch.cuda.device_count", return_value=2):
        assert runtime.pick_device(Config(device="cuda:1")) == torch.device("cuda:1")
    assert runtime.pick_device(Config(device="cpu")) == CPU


@effect("use_fp16", "use_bf16")
def _(name):
    cuda = torch.device("cuda")
    def dtype(bf16_machine, **changes):
        with mock.patch.object(runtime, "has_bf16", return_value=bf16_machine): return runtime.autocast_dtype(Config(**changes), cuda)
    assert (dtype(True), dtype(False)) == (torch.bfloat16, torch.float16)
    assert (dtype(True, use_bf16=False), dtype(False, use_fp16=False)) == (torch.float16, torch.float32)
    with mock.patch.object(runtime, "has_bf16", return_value=False): assert runtime.autocast_dtype(Config(), cuda, decoder=True) == torch.float32


@effect("use_gradient_checkpointing")
def _(name):
    def recomputes(on):
        d = backbones.load_decoder(MINI, CPU)
        stages._speed_up(MINI.override(use_gradient_checkpointing=on), seeded(MINI), d, torch.device("cuda"))
        return d.model.model.layers[0].gradient_checkpointing
    assert recomputes(True) and not recomputes(False)


@effect("use_torch_compile", "torch_compile_mode")
def _(name):
    def modes(**changes):
        with mock.patch("torch.nn.Module.compile") as compile: stages._speed_up(MINI.override(**changes), seeded(MINI), decoder(), CPU)
        return [call.kwargs["mode"] for call in compile.call_args_list]
    assert modes() == [] and modes(use_torch_compile=True) == ["reduce-overhead"] * 3
    assert modes(use_torch_compile=True, torch_compile_mode="max-autotune") == ["max-autotune"] * 3


@effect("async_checkpointing")
def _(name):
    def threads(on):
        seen, save = set(), stages.Saver.save
        import threading
        def spy(self, *a): seen.add(self.thread in threading.enumerate()); return save(self, *a)
        with mock.patch.object(stages.Saver, "save", spy): one_run(run_dir=str(SCRATCH / f"async-{on}"), async_checkpointing=on, run_finetuning=False, pretrain_middle_epochs=0)
        return seen
    assert threads(True) == {True} and threads(False) == {False}


@effect("attn_implementation")
def _(name): assert [backbones.load_encoder(MINI.override(attn_implementation=a), CPU).model.config._attn_implementation for a in ("eager", "sdpa")] == ["eager", "sdpa"]


@effect("use_rmsnorm")
def _(name): assert "adapter.norm.bias" in shapes(use_rmsnorm=False) and "adapter.norm.bias" not in shapes()


@effect("rmsnorm_eps")
def _(name): assert differs("summary_latents", rmsnorm_eps=1.0) and differs("prefix", rmsnorm_eps=1.0)


@effect("use_prefix_rope")
def _(name): assert differs("prefix", use_prefix_rope=False)


@effect("rope_base")
def _(name): assert differs("prefix", rope_base=10) and differs("summary_latents", rope_base=10)


FILES = dict(checkpoint_dir="points", save_every=1, keep_checkpoints=3,
             pretrain_best_model_filename="pre.pt", finetune_best_model_filename="fine.pt", handoff_best_model_filename="last.pt")


@functools.cache
def named_run() -> Path: return one_run(run_dir=str(SCRATCH / "named"), **FILES)


@effect("checkpoint_dir", "pretrain_best_model_filename", "finetune_best_model_filename", "handoff_best_model_filename", "run_dir", "save_every", "keep_checkpoints")
def _(name):
    steps = [p.name for p in trainer.step_files(SCRATCH / "named" / "points")] if named_run() else []
    assert {p.name for p in (SCRATCH / "named" / "points").iterdir()} == {"pre.pt", "fine.pt", "last.pt", *steps}
    assert steps == [f"step-finetune_adapter-000000{n}.pt" for n in (1, 2)] and named_run() == SCRATCH / "named"
    if name == "keep_checkpoints":
        def kept(n):
            folder = Path(tempfile.mkdtemp(dir=SCRATCH))
            toy(PLAIN.override(save_every=1, keep_checkpoints=n), folder=folder).run()
            return [p.stem[-1] for p in trainer.step_files(folder)]
        assert kept(1) == ["6"] and kept(4) == ["3", "4", "5", "6"]


@effect("temperature", "top_p", "top_k")
def _(name): assert generation_options(Config(**{name: dict(temperature=0.3, top_p=0.5, top_k=7)[name]}))[name] == dict(temperature=0.3, top_p=0.5, top_k=7)[name]


@effect("max_generation_length")
def _(name):
    prefix = torch.randn(1, 4, 160, generator=torch.Generator().manual_seed(0))
    with mock.patch.object(type(decoder()), "eos_id", -1):
        texts = [generate(decoder(), prefix, MINI.override(max_generation_length=n))[0] for n in (3, 12)]
    assert texts[1].startswith(texts[0][:3]) and len(texts[0]) < len(texts[1])


@effect("do_sample")
def _(name):
    assert generation_options(Config(do_sample=False))["temperature"] is None and generation_options(Config())["do_sample"]
    prefix = torch.randn(1, 4, 160, generator=torch.Generator().manual_seed(0))
    def texts(on): return {generate(decoder(), prefix, MINI.override(do_sample=on, max_generation_length=12, temperature=2.0))[0] for _ in range(4)}
    assert len(texts(False)) == 1 < len(texts(True))


@effect("num_beams")
def _(name):
    prefix = torch.randn(6, 8, 160, generator=torch.Generator().manual_seed(0)) * decoder().embedding_rms
    def texts(n): return generate(decoder(), prefix, MINI.override(num_beams=n, max_generation_length=12))
    with torch.inference_mode(): assert texts(1) != texts(4)


@effect("no_repeat_ngram_size")
def _(name):
    "No pair of tokens twice; as many rows as leave the batch one by one write the same as a few."
    prefix = torch.randn(20, 8, 160, generator=torch.Generator().manual_seed(0)) * decoder().embedding_rms
    cfg = MINI.override(no_repeat_ngram_size=2, max_generation_length=40)
    with torch.inference_mode(): free, bound, few = (generate(decoder(), p, c) for p, c in ((prefix, cfg.override(no_repeat_ngram_size=0)), (prefix, cfg), (prefix[:4], cfg)))
    def repeats(text): return len(pairs := list(zip(ids := decoder().tokenizer(text)["input_ids"], ids[1:]))) - len(set(pairs))
    assert sum(map(repeats, free)) > 5 * sum(map(repeats, bound)) and bound[:4] == few


@effect("end_probability")
def _(name):
    "Texts that end only where that is likely are longer, alone as in a batch; sampling and beams end as before."
    prefix = torch.randn(20, 8, 160, generator=torch.Generator().manual_seed(0)) * decoder().embedding_rms
    cfg = MINI.override(max_generation_length=40)
    surer = cfg.override(end_probability=0.9)
    write = lambda p, c: generate(decoder(), p, c)
    with torch.inference_mode():
        free, longer = write(prefix, cfg), write(prefix, surer)
        assert sum(map(len, longer)) > sum(map(len, free)) and write(prefix[:4], surer) == longer[:4]
        for other in (dict(num_beams=2), dict(do_sample=True)):
            both = []
            for c in (surer, cfg):
                torch.manual_seed(0)
                both.append(write(prefix[:4], c.override(**other)))
            assert both[0] == both[1], other


@effect("use_tui")
def _(name):
    from latent_summ.ui.tui import LineView, view_for
    with mock.patch("sys.stdout.isatty", return_value=True, create=True), mock.patch.dict("os.environ", TERM="xterm"):
        views = [type(view_for(Config(use_tui=on))) for on in (True, False)]
    assert views[1] is LineView and views[0] is not LineView


@effect("normalize_latent")
def _(name):
    x = torch.randn(2, 1, 768)
    assert torch.allclose(seeded(Config()).document_latents(x).norm(dim=-1), torch.ones(2, 8), atol=1e-5)
    assert not torch.allclose(seeded(Config(normalize_latent=False)).document_latents(x).norm(dim=-1), torch.ones(2, 8), atol=1e-2)


@effect("use_stop_latent")
def _(name):
    m = seeded(Config())
    assert m.is_stop(m.stop_latent[None]).item() and not seeded(Config(use_stop_latent=False)).is_stop(m.stop_latent[None]).item()
    assert "stop_latent" not in stage(Config(use_stop_latent=False), "pretrain_adapter").trains


@effect("stop_latent_init")
def _(name):
    norms = {i: model.draw_stop_latent(Config(stop_latent_init=i)).norm(dim=-1).mean().item() for i in ("random_normalized", "random", "zeros")}
    assert norms["zeros"] == 0 and norms["random_normalized"] == pytest.approx(1) and norms["random"] > 10


@effect("stop_latent_seed")
def _(name): assert not torch.equal(model.draw_stop_latent(Config()), model.draw_stop_latent(Config(stop_latent_seed=7)))


@effect("stop_latent_cosine_threshold")
def _(name): assert [seeded(Config(stop_latent_cosine_threshold=t)).is_stop(LATENTS).any().item() for t in (0.99, -1.0)] == [False, True]


@effect("dataset_name", "wikitext_dataset", "arxiv_dataset", "english_pretrain_dataset")
def _(name):
    def source(cfg): return Path(sources.load_pairs(cfg, "train").report["source"]).name
    if name == "dataset_name": assert (source(with_files()), source(MINI)) == ("talk", "messenger")
    else: assert f"texts/{name.split('_')[0]}/train" in keys(with_files()) and f"texts/{name.split('_')[0]}/train" not in keys(with_files(**{name: ""}))


@effect("train_split", "validation_split", "test_split")
def _(name):
    names = dict(train_split="fit", validation_split="check", test_split="probe")
    other = "test_split" if name != "test_split" else "validation_split"
    swapped = {name: names[other], other: names[name]}
    sizes = [len(sources.load_pairs(with_files(max_eval_samples=None, **changes), name.removesuffix("_split"))) for changes in ({}, swapped)]
    assert sizes == [dict(fit=30, check=8, probe=5)[n] for n in (names[name], names[other])]


@effect("max_train_samples")
def _(name): assert keys(with_files(max_train_samples=11))["pairs/train"] == 11 and rows_of("finetune_middle", Config(max_train_samples=11)) == 11


@effect("preprocess_cache_dir")
def _(name): assert cached(preprocess_cache_dir=str(SCRATCH / "elsewhere")).folder.parent == SCRATCH / "elsewhere"


@effect("preprocess_format")
def _(name): assert [{p.suffix for p in cached(preprocess_format=f).folder.glob("rows-*")} for f in ("jsonl", "arrow")] == [{".jsonl"}, {".arrow"}]


@effect("skip_preprocessing_if_cached")
def _(name):
    def embedded_twice(**changes):
        folder = tempfile.mkdtemp(dir=SCRATCH)
        cached(preprocess_cache_dir=folder)
        with mock.patch.object(embed.Embedder, "batch", autospec=True, side_effect=embed.Embedder.batch) as batch: cached(preprocess_cache_dir=folder, **changes)
        return batch.called
    assert not embedded_twice() and embedded_twice(skip_preprocessing_if_cached=False)


@effect("preprocess_batch_size")
def _(name):
    def most(n):
        with mock.patch.object(embed.Embedder, "batch", autospec=True, side_effect=embed.Embedder.batch) as batch: cached(preprocess_batch_size=n)
        return max(len(call.args[1]) for call in batch.call_args_list)
    assert most(3) == 3 and most(20) == 20


@effect("preprocess_validation_fraction")
def _(name):
    def share(f): return keys(with_files(preprocess_validation_fraction=f, max_eval_samples=None))
    assert share(0.1)["texts/wikitext/validation"] < share(0.5)["texts/wikitext/validation"]
    assert share(0.5)["texts/wikitext/train"] + share(0.5)["texts/wikitext/validation"] == 60


@effect("cache_store_text", "cache_store_input_ids", "cache_store_attention_mask", "cache_store_target_ids", "cache_store_target_attention_mask")
def _(name):
    field = name.removeprefix("cache_store_")
    all_on = dict.fromkeys(("cache_store_text", "cache_store_input_ids", "cache_store_attention_mask", "cache_store_target_ids", "cache_store_target_attention_mask"), True)
    masks = dict(cache_store_input_ids="cache_store_attention_mask", cache_store_target_ids="cache_store_target_attention_mask")  # a mask needs its ids
    off = {name: False, masks.get(name, name): False}
    wanted = {"dialogue", "summary"} if field == "text" else {field}
    assert wanted <= set(cached(**all_on).fields) and not wanted & set(cached(**all_on | off).fields)


@effect("cache_store_embeddings_int8")
def _(name): assert [cached(cache_store_embeddings_int8=on).fields["embedding"]["kind"] for on in (True, False)] == ["int8", "float32"]


@effect("cache_store_latents")
def _(name):
    def held(on):
        folder = tempfile.mkdtemp(dir=SCRATCH)
        only_stage_3 = dict(pretrain_middle_epochs=0, pretrain_adapter_epochs=0, finetune_adapter_epochs=0)
        one_run(run_dir=folder + "-run", preprocess_cache_dir=folder, cache_store_latents=on, **only_stage_3)
        return {tuple(json.loads(p.read_text())["fields"]["embedding"]["shape"]) for p in Path(folder).glob("*/manifest.json")}
    assert held(False) == {(1, 160)} and held(True) == {(8, 256)}


@effect("cache_use_embeddings_for_training")
def _(name):
    assert not plan.needs_live_encoder(MINI) and plan.needs_live_encoder(MINI.override(cache_use_embeddings_for_training=False))
    folder = SCRATCH / "no-cache"
    with mock.patch.object(runs, "encode_batch", side_effect=embedder.encode_batch) as encoded:
        one_run(run_dir=str(SCRATCH / "live"), preprocess_cache_dir=str(folder), cache_use_embeddings_for_training=False, run_finetuning=False, pretrain_adapter_epochs=0)
    assert encoded.called and not folder.exists()


@effect("cache_write_offsets_index")
def _(name): assert [bool(list(cached(cache_write_offsets_index=on).folder.glob("offsets-*"))) for on in (True, False)] == [True, False]


@effect("pipeline_mode")
def _(name): assert [(type(seeded(c).middle).__name__, plan.stage_table(c)[0].name) for c in (Config(), Config(pipeline_mode="legacy"))] == [
    ("MiddleTransformer", "pretrain_middle"), ("LegacyMiddle", "legacy")]


@effect("run_preprocessing")
def _(name):
    cfg = with_files(preprocess_cache_dir=tempfile.mkdtemp(dir=SCRATCH))
    with pytest.raises(runtime.CacheError): embed.preprocess(cfg.override(run_preprocessing=False), encoder(), decoder())
    made = embed.preprocess(cfg, encoder(), decoder())
    assert {k: len(c) for k, c in embed.preprocess(cfg.override(run_preprocessing=False), encoder(), decoder()).items()} == {k: len(c) for k, c in made.items()}


@effect("run_pretraining", "run_finetuning")
def _(name):
    assert {s.half for s in plan.stage_table(Config(**{name: False}))} == {"finetune" if name == "run_pretraining" else "pretrain"}
    assert keys(with_files(**{name: False})).keys() == {k for k in keys(with_files()) if k.startswith("pairs" if name == "run_pretraining" else "texts")}


@effect("freeze_encoder_compression_in_pipeline")
def _(name): assert ["compression" in stage(Config(freeze_encoder_compression_in_pipeline=on), "pretrain_adapter").trains for on in (True, False)] == [False, True]


@effect("adapter_pretrain_use_middle")
def _(name):
    def passed(on):
        cfg = MINI.override(adapter_pretrain_use_middle=on, readout_weight=0.0, embedding_normalizer="none")
        m, batch = seeded(cfg).eval(), dict(inputs=torch.randn(2, 8, 256), labels=torch.tensor([[5, 6], [7, 8]]))
        objective = objectives.stage_objective(stage(cfg, "pretrain_adapter"))
        with mock.patch.object(m.middle, "forward", side_effect=m.middle.forward) as forward: objective(m, decoder(), cfg, batch, 1.0)
        return forward.called
    assert passed(True) and not passed(False)


STAGE_NAMES = ("pretrain_middle", "pretrain_adapter", "finetune_middle", "finetune_adapter")


@effect(*(f"{s}_epochs" for s in STAGE_NAMES))
def _(name):
    s, cfg = name.removesuffix("_epochs"), Config(**{name: 9})
    assert stage(cfg, s).epochs == 9 and s not in [t.name for t in plan.stage_table(Config(**{name: 0}))]


@effect(*(f"{s}_batch_size" for s in STAGE_NAMES))
def _(name):
    cfg = Config(**{name: 7})
    assert {s.name: s.batch_size for s in plan.stage_table(cfg)} == dict.fromkeys(STAGE_NAMES, 30) | {name.removesuffix("_batch_size"): 7}


@effect(*(f"{s}_max_samples" for s in STAGE_NAMES))
def _(name):
    s = name.removesuffix("_max_samples")
    assert rows_of(s, Config(**{name: 1234})) == 1234 < rows_of(s)


@effect("pretrain_middle_max_samples_wikitext", "pretrain_middle_max_samples_arxiv", "pretrain_middle_max_samples_english",
        "pretrain_adapter_max_samples_wikitext", "pretrain_adapter_max_samples_arxiv")
def _(name):
    s, source = name.split("_max_samples_")
    def rows(cap): return rows_of(s, Config(**{name: cap}), **{f"texts/{other}/train": [] for other in ("wikitext", "arxiv", "english") if other != source})
    assert (rows(777), rows(None) >= 300_000) == (777, True)


@effect("latent_mse_weight", "contrastive_weight", "contrastive_temperature", "contrastive_hardness")
def _(name):
    other = LATENTS.flip(0)
    assert not torch.isclose(latent_loss(Config(), LATENTS, other)[0], latent_loss(Config(**{name: 0.7}), LATENTS, other)[0])


@effect("training_phase")
def _(name): assert [[s.name for s in plan.stage_table(Config(training_phase=p))] for p in ("phase1", "phase2", "phase3")] == [["phase1"], ["phase2"], ["phase3"]]


# beyond the reference

@effect("encoder_pooling")
def _(name):
    found = [embedder.embed_texts(MINI.override(encoder_pooling=p), encoder(), ["Anna: hi"]).shape for p in ("mean", "segments", "latent_tokens")]
    assert found == [(1, 1, 160), (1, 8, 160), (1, 8, 160)]
    asked = teach.with_queries(backbones.load_encoder(MINI, torch.device("cpu")), 8)
    queried = embedder.embed_texts(MINI.override(encoder_pooling="queries"), asked, ["Anna: hi"])
    assert queried.shape == (1, 8, 160) and not (queried == embedder.embed_texts(MINI.override(encoder_pooling="segments"), asked, ["Anna: hi"])).any()


@effect("query_layers")
def _(name):
    asked = teach.with_queries(backbones.load_encoder(MINI, CPU), 8, 2)
    assert len(asked.queries.layers) == 2 and len(teach.with_queries(asked, 8, 4).queries.layers) == 4


@effect("prefix_separator")
def _(name):
    decoder = backbones.load_decoder(MINI.override(prefix_separator="\n\n\n"), CPU)
    plain = backbones.load_decoder(MINI, CPU)
    assert len(decoder.separator_ids) > len(plain.separator_ids) > 0 and decoder.newline_id == plain.newline_id
    prefix = torch.zeros(1, 4, decoder.hidden_size)
    assert [prompt_embeds(d, prefix).shape[1] - 4 - len(d.bos_ids) for d in (plain, decoder)] == [len(plain.separator_ids), len(decoder.separator_ids)]


@effect("decoder_lora_learning_rate")
def _(name):
    named = [(part, torch.nn.Parameter(torch.zeros(3, 3))) for part in ("adapter.out.weight", "decoder_lora.0.up.weight")]
    def rates(**changes):
        cfg = MINI.override(optimizer="adamw", learning_rate=1e-4, **changes)
        return [g["initial_lr"] for o in make_optimizers(named, cfg) for g in o.param_groups for _ in g["params"]]
    assert rates() == [1e-4, 1e-4] and rates(decoder_lora_learning_rate=1e-3) == [1e-4, 1e-3]


@effect("encoder_early_layer")
def _(name):
    inputs = dict(input_ids=torch.tensor([[2, 40, 41, 3]]), attention_mask=torch.ones(1, 4, dtype=torch.long))
    hidden = encoder().model(**inputs, output_hidden_states=True).hidden_states
    states = embedder.token_states(MINI.override(encoder_early_layer=1), encoder(), **inputs)
    last = encoder().model(**inputs).last_hidden_state
    assert torch.allclose(states, (hidden[1] + last) / 2) and not torch.allclose(states, last)
    with pytest.raises(ModelError, match="layers, but encoder_early_layer=99"): backbones.load_encoder(MINI.override(encoder_early_layer=99), CPU)
    with pytest.raises(ModelError, match="encoder_early_layer=99, but the encoder has"): embedder.token_states(MINI.override(encoder_early_layer=99), encoder(), **inputs)


@effect("embedding_normalizer")
def _(name): assert [shapes(embedding_normalizer=n).get("normalizer.transform") for n in ("none", "standard", "whiten")] == [None, (1, 768), (768, 768)]


@effect("middle_residual")
def _(name): assert torch.allclose(outputs("summary_latents", middle_residual=True), LATENTS, atol=1e-5) and not torch.allclose(outputs("summary_latents"), LATENTS, atol=1e-2)


@effect("adapter_latent_positions")
def _(name): assert "adapter.latent_positions" in shapes(adapter_latent_positions=True)


@effect("adapter_flat_rank")
def _(name): assert shapes(adapter_flat_rank=5)["adapter.flat_down.weight"] == (5, 2048)


def loss_of(cfg, name, training=True, progress=1.0, **columns):
    "A stage's loss and parts on two fixed rows, from fixed weights and a fixed seed."
    cfg = cfg.override(embedding_normalizer="none", use_bf16=False)
    m = seeded(cfg).train(training)
    g = torch.Generator().manual_seed(2)
    latents = [m.document_latents(torch.randn(2, 8, 160, generator=g)) for _ in range(2)]
    batch = dict(inputs=latents[0], outputs=latents[1].detach(), labels=LABELS)
    wanted = {k: v for k, v in batch.items() if k in training_rows._columns(stage(cfg, name))} | columns
    return objectives.stage_objective(stage(cfg, name))(m, decoder(), cfg, wanted, progress)


LABELS = torch.tensor([[5, 6, 1], [7, 1, -100]])


@effect("middle_cross_entropy_weight")
def _(name):
    def parts(**changes): return loss_of(MINI.override(**changes), "finetune_middle")
    assert set(parts()[1]) == {"mse", "contrastive"} and set(parts(middle_cross_entropy_weight=0.5)[1]) == {"mse", "contrastive", "cross_entropy"}
    alone = dict(latent_mse_weight=0.0, contrastive_weight=0.0)
    loss, told = parts(middle_cross_entropy_weight=0.5, **alone)
    assert torch.isclose(loss, 0.5 * told["cross_entropy"]) and set(told) == {"cross_entropy"}
    with pytest.raises(runtime.ModelError, match="nothing to learn from"): parts(**alone)
    assert training_rows._columns(stage(Config(middle_cross_entropy_weight=0.5), "finetune_middle"))["labels"] == "target_ids"


@effect("finetune_adapter_train_queries")
def _(name):
    cfg = Config(encoder_pooling="queries", finetune_adapter_train_queries=True)
    assert set(stage(cfg, "finetune_adapter").trains) == {"adapter", "queries", "compression"} and plan.needs_live_encoder(cfg)
    assert not plan.needs_live_encoder(Config(encoder_pooling="queries"))


@effect("finetune_adapter_train_middle")
def _(name): assert [stage(Config(finetune_adapter_train_middle=on), "finetune_adapter").trains for on in (False, True)] == [("adapter",), ("adapter", "middle")]


@effect("latent_noise", "latent_mixing")
def _(name):
    def loss(training, value): return loss_of(MINI.override(**{name: value}), "finetune_adapter", training)[0].item()
    assert loss(True, 0.0) != pytest.approx(loss(True, 1.0), abs=1e-4) and loss(False, 0.0) == pytest.approx(loss(False, 1.0), abs=1e-5)
    assert ("outputs" in training_rows._columns(stage(Config(**{name: 1.0}), "finetune_adapter"))) == (name == "latent_mixing")


@effect("fact_token_weight")
def _(name):
    labels = torch.tensor([decoder().tokenizer("She comes at 7 pm.", add_special_tokens=False)["input_ids"]])
    def loss(w, where): return loss_of(MINI.override(fact_token_weight=w), where, training=False, labels=labels)[1]["cross_entropy"].item()
    assert loss(1.0, "finetune_adapter") != loss(9.0, "finetune_adapter")
    run = mock.Mock(cfg=MINI.override(fact_token_weight=9.0), decoder=decoder())
    assert stages._weight(run)(dict(labels=labels)) == labels.numel() + 8 == trainer.batch_weight(dict(labels=labels)) + 8


@effect("teacher_kl_weight")
def _(name):
    context = torch.tensor([[2, 40, 41, 42], [2, 43, -100, -100]])
    def parts(weight):
        return loss_of(MINI.override(teacher_kl_weight=weight, cache_store_text=True), "finetune_adapter", False, **dict(context=context) if weight else {})
    (plain, told), (more, both) = parts(0.0), parts(0.5)
    assert set(told) == {"cross_entropy"} and torch.isclose(more, plain + 0.5 * both["teacher_kl"], atol=1e-4) and both["teacher_kl"] > 0.1
    cfg = with_files(teacher_kl_weight=0.5, cache_store_text=True, run_pretraining=False)
    caches = embed.preprocess(cfg, encoder(), decoder())
    rows = stages._rows(mock.Mock(cfg=cfg, decoder=decoder(), sources=caches), stage(cfg, "finetune_adapter"), "train")
    assert decoder().tokenizer.decode(rows.batch([3])["context"][0], skip_special_tokens=True).startswith("A: number 3 of fit")
    assert (rows.lengths > rows.targets.lengths).all() # a teacher reads more of a longer dialogue
    live = training_rows.token_rows(cfg, encoder(), decoder(), list(sources.load_pairs(cfg, "train")))
    assert live.context.batch([3])["input_ids"].tolist() == rows.context.batch([3])["input_ids"].tolist()


@effect("side_channel", "side_channel_drop")
def _(name):
    facts = torch.tensor([[0] * 6 + [40, 41], [0] * 7 + [42]])
    def loss(training, drop, given=facts):
        cfg = MINI.override(side_channel=8, side_channel_drop=drop)
        return loss_of(cfg, "finetune_adapter", training, **dict(facts=given) if given is not None else {})[0].item()
    alone = loss(True, 0.5, None)
    assert loss(True, 1.0) == pytest.approx(alone, abs=1e-4) != pytest.approx(loss(True, 0.0), abs=1e-4)
    assert loss(False, 1.0) == pytest.approx(loss(False, 0.0), abs=1e-5), "only while learning"
    assert [("facts" in s.wants) for s in plan.stage_table(Config(side_channel=8))] == [False, False, False, True]
    cfg = with_files(side_channel=16, run_pretraining=False)
    caches = embed.preprocess(cfg, encoder(), decoder())
    rows = stages._rows(mock.Mock(cfg=cfg, decoder=decoder(), sources=caches), stage(cfg, "finetune_adapter"), "train")
    assert rows.batch([3])["facts"].shape == (1, 16) and decoder().tokenizer.decode(rows.batch([3])["facts"][0], skip_special_tokens=True).split(", ").count("A") == 1
    assert rows.lengths.tolist() == rows.targets.lengths.tolist() # the prefix has one length, but for windows: see test_teach
    live = training_rows.token_rows(cfg, encoder(), decoder(), list(sources.load_pairs(cfg, "train")))
    assert live.facts.batch([3])["input_ids"].tolist() == rows.facts.batch([3])["input_ids"].tolist()


@effect("decoder_lora_rank")
def _(name):
    assert [("decoder_lora" in s.trains) for s in plan.stage_table(Config(decoder_lora_rank=3))] == [False, False, False, True]
    cfg, own = MINI.override(decoder_lora_rank=3, embedding_normalizer="none"), backbones.load_decoder(MINI, CPU)
    made = stages._new_model(cfg, encoder(), own, CPU)
    assert {tuple(m.down.weight.shape) for m in made.decoder_lora} == {(3, 160)} and len(made.decoder_lora) == 2 * own.model.config.num_hidden_layers
    text = torch.tensor([[2, 40, 41]])
    before = own.model(text).logits
    with torch.no_grad(): made.decoder_lora[0].up.weight.fill_(0.1)
    after = own.model(text).logits
    assert torch.equal(before, decoder().model(text).logits) and not torch.allclose(before, after)
    again = backbones.load_decoder(MINI, CPU)
    model.build_model(dict(model=made.state_dict()), cfg, encoder().model, again.model)
    assert torch.equal(again.model(text).logits, after)


@effect("decoder_lora_layers")
def _(name):
    cfg, own = MINI.override(decoder_lora_rank=3, decoder_lora_layers="all"), backbones.load_decoder(MINI, CPU)
    made = stages._new_model(cfg, encoder(), own, CPU)
    assert len(made.decoder_lora) == 7 * own.model.config.num_hidden_layers
    text = torch.tensor([[2, 40, 41]])
    for low in made.decoder_lora: # each of them changes what the decoder writes
        before = own.model(text).logits
        with torch.no_grad(): low.up.weight.fill_(0.1)
        assert not torch.allclose(before, own.model(text).logits)
        with torch.no_grad(): low.up.weight.zero_()


LESSON = dict(teach_encoder_steps=5, teach_encoder_batch_size=4, gradient_accumulation_steps=2, max_train_samples=None)


def lesson(**changes) -> trainer.Job:
    "Stage 0's job on the files."
    return lessons.lesson_job(with_files(**LESSON | changes), backbones.load_encoder(MINI, CPU), decoder(), CPU)


@effect("teach_encoder_steps", "teach_encoder_batch_size", "teach_encoder_learning_rate")
def _(name):
    cfg = with_files(**LESSON | {name: 3})
    t = trainer.Trainer(lesson(**{name: 3}), lessons.lesson_rates(cfg), CPU)
    assert (t.steps, t.job.batch_size) == dict(teach_encoder_steps=(3, 4), teach_encoder_batch_size=(5, 3), teach_encoder_learning_rate=(5, 4))[name]
    assert {g["lr"] for o in t.optimizers for g in o.param_groups} == {3.0 if name == "teach_encoder_learning_rate" else 1e-3}


@effect("teach_encoder_dialogues", "teach_encoder_summaries")
def _(name):
    def counts(**shares):
        rows = lesson(**dict(teach_encoder_dialogues=0.0, teach_encoder_summaries=0.0) | shares).rows
        ids = rows.ids
        return len(rows), sum(i.startswith("fit") for i in ids), int((rows.numbers >= rows.pairs_from).sum())
    pairs = name == "teach_encoder_summaries"
    assert counts() == (40, 0, 0) and counts(**{name: 0.25}) == (40, 10, 10 if pairs else 0)


@effect("teach_encoder_readout")
def _(name):
    def parts(share, progress):
        job = lesson(teach_encoder_readout=share)
        return set(job.loss(job.rows.batch([0, 1]), progress)[1])
    assert parts(0.5, 0.4) == {"readout"} and parts(0.5, 0.6) == {"readout", "cross_entropy"}


@effect("teach_encoder_cache_states")
def _(name):
    def first(kept):
        loaded = teach.with_queries(backbones.load_encoder(MINI, CPU), 8)
        cfg = with_files(**LESSON, encoder_pooling="queries", num_encoder_unfrozen_layers=0, teach_encoder_cache_states=kept)
        torch.manual_seed(0)
        job = lessons.lesson_job(cfg, loaded, decoder(), CPU)
        job.model.queries.load_state_dict(learnt.queries.state_dict())
        batch = job.rows.batch([0, 1])
        return set(batch["inputs"]), float(job.loss(batch, 0.0)[0].detach())
    learnt = teach.with_queries(backbones.load_encoder(MINI, CPU), 8)
    (kept, ours), (run, theirs) = first(True), first(False)
    assert (kept, run) == ({"hidden_states", "input_ids", "attention_mask"}, {"input_ids", "attention_mask"}) and ours == pytest.approx(theirs, rel=0.01)


@effect("teach_encoder_words")
def _(name):
    def told(weight):
        job = lesson(teach_encoder_words=weight)
        loss, parts = job.loss(job.rows.batch([0, 1]), 0.0)
        return float(loss.detach() - parts["readout"]), float(parts.get("words", 0.0))
    (off, none), (extra, words) = told(0.0), told(0.5)
    assert (off, none) == (0.0, 0.0) and words > 0 and abs(extra - 0.5 * words) < 1e-4


@effect("optimizer")
def _(name):
    for bf16, kind in ((True, "Muon"), (False, "Float32Muon")):
        with mock.patch("latent_summ.train.optim.has_bf16", return_value=bf16):
            assert [type(o).__name__ for o in toy(PLAIN.override(optimizer="muon")).optimizers] == [kind]


@effect("muon_learning_rate")
def _(name): assert toy(PLAIN.override(optimizer="muon", muon_learning_rate=0.25)).optimizers[0].param_groups[0]["lr"] == 0.25


@effect("max_grad_norm")
def _(name):
    def gradient(limit):
        t = toy(PLAIN.override(max_grad_norm=limit), n=4)
        with mock.patch.object(t.optimizers[0], "zero_grad"): t.run()
        return t.job.model.part.weight.grad.norm().item()
    assert gradient(1e-3) == pytest.approx(1e-3, rel=1e-2) and gradient(1e6) > 1e-2


@effect("readout_weight", "readout_warmup")
def _(name):
    def parts(progress, **changes):
        cfg = MINI.override(**dict(readout_weight=0.0, readout_warmup=0.0, embedding_normalizer="none") | changes)
        batch = dict(inputs=torch.randn(2, 8, 256), labels=torch.tensor([[5, 6], [7, 8]]))
        return set(objectives.stage_objective(stage(cfg, "pretrain_adapter"))(seeded(cfg), decoder(), cfg, batch, progress)[1])
    assert parts(1.0) == {"cross_entropy"} and parts(1.0, readout_weight=0.5) == {"cross_entropy", "readout"}
    assert parts(0.1, readout_warmup=0.5) == {"readout"} and parts(0.6, readout_warmup=0.5) == {"cross_entropy"}


@effect("shard_decoder")
def _(name):
    dist.init_process_group("gloo", init_method=f"file://{SCRATCH}/meet", rank=0, world_size=1)  # a group of one splits too
    try:
        split = scale.shard_decoder(backbones.load_decoder(MINI, CPU), CPU)
        assert all(hasattr(p, "to_local") for p in split.model.base_model.layers.parameters())
    finally: dist.destroy_process_group()
    with pytest.raises(ConfigError, match="torchrun"): stages.run_pipeline(MINI.override(shard_decoder=True, run_dir=str(SCRATCH / "split")))


@effect("rows_in_memory_gb")
def _(name):
    cfg = with_files(run_pretraining=False)
    caches = embed.preprocess(cfg, encoder(), decoder())
    kinds = [type(training_rows.stage_rows(cfg.override(rows_in_memory_gb=gb), stage(cfg, "finetune_adapter"), caches)) for gb in (4.0, 0.0)]
    assert kinds == [training_rows.StageRows, training_rows.CachedRows]


@effect("stop_rows")
def _(name): assert [len(objectives.stop_latents(seeded(Config()), Config(stop_rows=n))) for n in (0, 5)] == [0, 5]


@effect("seed")
def _(name):
    rows = training_rows.StageRows(torch.zeros(50, 1, 1))
    def order(seed): return [int(i) for cut in trainer.epoch_batches(rows, 5, (seed, "x", 0)) for i in cut]
    assert order(1) == order(1) != order(2)
    def drawn(seed): return stages._new_model(MINI.override(seed=seed, embedding_normalizer="none"), encoder(), decoder(), CPU).compression.out.weight
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


@effect("text_column", "dialogue_column", "summary_column")
def _(name):
    def read(cfg): return list(sources.load_texts(cfg, cfg.wikitext_dataset, "train")) if name == "text_column" else list(sources.load_pairs(cfg, "train"))
    row = read(with_files())[0]
    assert row[name.removesuffix("_column")].startswith(dict(text_column="A text with", dialogue_column="A: number", summary_column="It is")[name])
    with pytest.raises(runtime.DataError, match=name.replace("_", "-")): read(with_files(**{name: "nowhere"}))


@effect("id_column")
def _(name):
    def ids(cfg): return [r["id"] for r in sources.load_pairs(cfg, "train")]
    named = ids(with_files(id_column="gist"))
    assert named[:2] == ["It is 0.", "It is 1."] and ids(with_files())[0] == "fit0"
    with pytest.raises(runtime.DataError, match="--id-column"): ids(with_files(id_column="nowhere"))


@effect("max_eval_samples")
def _(name): assert [len(sources.load_pairs(with_files(max_eval_samples=n), "validation")) for n in (3, None)] == [3, 8]


@effect("messenger_rows")
def _(name): assert [len(sources.load_pairs(MINI.override(messenger_rows=n), "train")) for n in (10, 25)] == [10, 25]


@effect("chat_gap_hours")
def _(name):
    chat = SCRATCH / "chat.txt"
    chat.write_text("".join(f"12.03.26, {hour}:00 - Maya: it is {hour}\n" for hour in ("08", "10", "15")))
    def rows(hours): return len(sources.load_texts(MINI.override(chat_gap_hours=hours, preprocess_validation_fraction=1e-6), str(chat)))
    assert [rows(hours) for hours in (1.0, 3.0, 6.0)] == [3, 2, 1]


@effect("speakers")
def _(name):
    def first(value): return sources.load_pairs(MINI.override(speakers=value), "validation")[0]
    named, marked = first("named"), first("anonymise")
    speaker = named["dialogue"].split(":")[0]
    assert marked["dialogue"].startswith("#Person1#:") and speaker not in marked["dialogue"] + marked["summary"] and named["id"] == marked["id"]


@effect("messenger_fullest")
def _(name):
    def rows(split, on): return list(sources.load_pairs(MINI.override(messenger_fullest=on), split))
    (some, most), (held, same) = ([rows(split, on) for on in (False, True)] for split in ("train", "test"))
    assert [r["dialogue"] for r in some] == [r["dialogue"] for r in most] and [r["summary"] for r in some] != [r["summary"] for r in most] and held == same


@effect("trackers")
def _(name):
    from latent_summ.train import sinks
    with mock.patch.object(sinks, "find_spec", return_value=True):
        assert [len(sinks.sinks_for(Config(trackers=t))) for t in ("", "tensorboard", "tensorboard,trackio")] == [0, 1, 2]
    with mock.patch.object(sinks, "find_spec", return_value=None), pytest.raises(runtime.LatentSummError, match=r"latent_summ\[trackers\]"):
        sinks.sinks_for(Config(trackers="trackio"))


# --- the tests --------------------------------------------------------------------------------------------------------

def test_every_field_has_an_entry():
    fields = {f.name for f in dataclasses.fields(Config)}
    assert set(EFFECTS) == fields, (fields - set(EFFECTS), set(EFFECTS) - fields)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Config)])
def test_effect(name):
    with contextlib.redirect_stderr(io.StringIO()): EFFECTS[name](name)
