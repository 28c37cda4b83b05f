"""The config as a promise: the reference's defaults, the round trip Python -> JSON -> command line -> Python, and what is refused."""
import copy
import dataclasses
import json
import math
import os
import string
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from latent_summ.ui.cli import status_of
from latent_summ.config import PRESETS, Config, ConfigError, fields_of, read_json
from latent_summ.sections import REFERENCE_SECTIONS, check_value
from latent_summ.ui.flags import flag_words

ROOT = Path(__file__).resolve().parent.parent
FIELDS = {f.name: f for f in dataclasses.fields(Config)}
FINGERPRINTS = ("cache", "model", "training")

# The reference, parameter by parameter and in its order: name:type=default. This is what `Config()` promises to be.
REFERENCE = """
latent_dim:int=256 latent_seq_len:int=8 prefix_len:int=50 modernbert_hidden_dim:int=768 gpt2_hidden_dim:int=640 middle_hidden_dim:int=512
middle_layers:int=4 middle_transformer_layers:int=4 middle_num_heads:int=4 middle_ffn_multiplier:float=4.0 middle_dropout:float=0.1
middle_use_rope:bool=True adapter_num_heads:int=4 adapter_dropout:float=0.1 adapter_use_rope:bool=True num_encoder_unfrozen_layers:int=2
learning_rate:float=2e-5 batch_size:int=30 gradient_accumulation_steps:int=3 max_seq_len:int=512 max_target_len:int=256 num_workers:int=4
prefetch_factor:int=4 num_epochs:int=50 warmup_steps:int=200 weight_decay:float=0.01 modernbert_model:str=answerdotai/ModernBERT-base
gpt2_model:str=google/gemma-3-270m-it device:str=cuda use_fp16:bool=True use_bf16:bool=True use_gradient_checkpointing:bool=True
use_torch_compile:bool=False torch_compile_mode:str=reduce-overhead async_checkpointing:bool=True attn_implementation:str=flash_attention_2
use_rmsnorm:bool=True rmsnorm_eps:float=1e-6 use_prefix_rope:bool=True rope_base:int=10000 checkpoint_dir:str=checkpoints save_every:int=500
pretrain_best_model_filename:str=best_model_pretrain.pt finetune_best_model_filename:str=best_model_finetune.pt
handoff_best_model_filename:str=best_model.pt temperature:float=0.7 max_generation_length:int=256 do_sample:bool=True top_p:float=0.9 top_k:int=50
use_tui:bool=True normalize_latent:bool=True use_stop_latent:bool=True stop_latent_init:str=random_normalized stop_latent_seed:int=1337
stop_latent_cosine_threshold:float=0.99 dataset_name:str=knkarthick/samsum train_split:str=train validation_split:str=validation test_split:str=test
max_train_samples:int=None wikitext_dataset:str=Hieuman/wikitext-103-filtered arxiv_dataset:str=macrocosm/arxiv_abstracts
english_pretrain_dataset:str=shuyuej/English-Pretraining-Dataset preprocess_cache_dir:str=cache/preprocessed preprocess_format:str=jsonl
skip_preprocessing_if_cached:bool=True preprocess_batch_size:int=32 preprocess_validation_fraction:float=0.05 cache_store_text:bool=False
cache_store_input_ids:bool=False cache_store_attention_mask:bool=False cache_store_target_ids:bool=True cache_store_target_attention_mask:bool=True
cache_store_embeddings_int8:bool=True cache_use_embeddings_for_training:bool=True cache_write_offsets_index:bool=True
pipeline_mode:str=two_stage_scientific run_preprocessing:bool=True run_pretraining:bool=True run_finetuning:bool=True
freeze_encoder_compression_in_pipeline:bool=True adapter_pretrain_use_middle:bool=False pretrain_middle_epochs:int=6 pretrain_adapter_epochs:int=4
finetune_middle_epochs:int=2 finetune_adapter_epochs:int=2 pretrain_middle_batch_size:int=None pretrain_adapter_batch_size:int=None
finetune_middle_batch_size:int=None finetune_adapter_batch_size:int=None pretrain_middle_max_samples:int=None pretrain_adapter_max_samples:int=None
finetune_middle_max_samples:int=None finetune_adapter_max_samples:int=None pretrain_middle_max_samples_wikitext:int=None
pretrain_middle_max_samples_arxiv:int=None pretrain_middle_max_samples_english:int=None pretrain_adapter_max_samples_wikitext:int=150000
pretrain_adapter_max_samples_arxiv:int=150000 latent_mse_weight:float=1.0 contrastive_weight:float=0.1 training_phase:str=normal
"""


# --- helpers ----------------------------------------------------------------------------------------------------------

def kind_of(field) -> tuple:
    "(plain type, whether None is allowed)"
    args = typing.get_args(field.type)
    return (next(a for a in args if a is not type(None)), type(None) in args) if args else (field.type, False)


def reference_rows() -> list:
    "(name, type, default) of each row of the table above."
    read = {"int": int, "float": float, "str": str, "bool": lambda text: {"True": True, "False": False}[text]}
    rows = []
    for row in REFERENCE.split():
        name, rest = row.split(":", 1)
        kind, default = rest.split("=", 1)
        rows.append((name, kind, None if default == "None" else read[kind](default)))
    return rows


def unchecked(**values) -> Config:
    "A config with these values, each checked alone but not as a whole."
    cfg = copy.copy(Config())
    for name, value in values.items(): setattr(cfg, name, value)
    return cfg


def another(name):
    "A valid value of a field that is not its default."
    field = FIELDS[name]
    (kind, _), default, meta = kind_of(field), field.default, field.metadata
    if meta["choices"]: return next(c for c in meta["choices"] if c != default)
    if kind is bool: return not default
    if kind is str: return {"device": "cpu", "trackers": "trackio"}.get(name, "other-" + (default or ""))
    if default is None: return 7
    if kind is int: return default * 2 or 3
    return default / 2 or 0.25


def valid(field, value) -> bool:
    try: check_value(field, value)
    except ConfigError: return False
    return True


def as_strict_json(cfg) -> str: return json.dumps(cfg.__dict__, allow_nan=False)


# --- the reference's table --------------------------------------------------------------------------------------------

def test_the_reference_has_103_parameters(): assert len(reference_rows()) == len({name for name, *_ in reference_rows()}) == 103


def test_defaults_types_and_order_are_the_references():
    ours = []
    for section in REFERENCE_SECTIONS:
        for f in dataclasses.fields(section):
            kind, optional = kind_of(f)
            assert not (f.default is None and not optional), f"{f.name}: its default None would be refused"
            ours.append((f.name, kind.__name__, getattr(Config(), f.name)))
    assert ours == reference_rows()
    assert [type(value) for *_, value in ours] == [type(value) for *_, value in reference_rows()]
    assert list(Config().__dict__)[:103] == [name for name, *_ in reference_rows()]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_say_what_they_change(name):
    cfg = Config.preset(name)
    assert Config(**cfg.__dict__) == cfg and {k: v for k, v in PRESETS[name].items() if FIELDS[k].default != v} == {k: v for k, (_, v) in cfg.diff().items()}


# --- any valid config -------------------------------------------------------------------------------------------------

AWKWARD = ["", " ", "none", "None", "null", '"none"', '"', '""', "'", "--run-dir", "-h", "--", "-", "@file", "a=b", "=", "x y", "tab\t", "two\nlines", "{}",
           "[1]", "true", "1.0", "nan", "~", "$HOME", "*", "%s", "{name}", "[bold]x[/]", "C:\\new", "ümläut", "日本", "👩‍👩‍👧", "\u202eright", "e\u0301", "a_b", "-1"]


def numbers(kind, meta):
    "Numbers within the bounds of a field."
    low = meta["ge"] if meta["ge"] is not None else meta["gt"]
    high = meta["le"] if meta["le"] is not None else meta["lt"]
    if kind is int:
        low = 0 if low is None else int(low) + (meta["ge"] is None)
        top = 2**63 - 1 if high is None else int(high) - (meta["le"] is None)
        return st.one_of(st.integers(low, min(top, low + 1000)), st.integers(low, top))
    out = st.floats(low, high, exclude_min=meta["gt"] is not None, exclude_max=meta["lt"] is not None, allow_nan=False, allow_infinity=False)
    return out if meta["ge"] is None else out | st.just(float(meta["ge"]))


def values_of(field):
    "A strategy for one field, made from its metadata alone."
    kind, optional = kind_of(field)
    if field.metadata["choices"]: out = st.sampled_from(field.metadata["choices"])
    elif kind is bool: out = st.booleans()
    elif kind is str:
        out = st.sampled_from(AWKWARD) | st.text(max_size=12) | st.text(string.ascii_letters + "-_/. '\"", max_size=12)
        if field.metadata["form"]: out = st.from_regex(field.metadata["form"], fullmatch=True) | out
    else: out = numbers(kind, field.metadata)
    return st.none() | out if optional else out.filter(lambda value: valid(field, value))


VALUES = {name: values_of(field) for name, field in FIELDS.items()}
HEADS = (("middle_num_heads", "latent_dim"), ("adapter_num_heads", "gpt2_hidden_dim"))


@st.composite
def configs(draw) -> Config:
    "Any valid config: up to 30 fields are changed; what cannot stand beside the others stays as it is."
    changes = [{name: draw(VALUES[name])} for name in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=30, unique=True))]
    for heads, width in HEADS:
        n = draw(st.integers(1, 64))
        changes.append({heads: n, width: n * 2 * draw(st.integers(1, 64))})
    try: return Config().override(**{k: v for some in changes for k, v in some.items()})
    except ConfigError: cfg = Config()
    for some in changes:
        try: cfg = cfg.override(**some)
        except ConfigError: continue
    return cfg


def everything_changed() -> Config:
    "Every field at another value than its default, as far as the combinations allow."
    cfg, refused = Config(), []
    for name in FIELDS:
        try: cfg = cfg.override(**{name: another(name)})
        except ConfigError: refused.append(name)
    assert not set(refused) - {"cache_store_target_ids", "cache_store_attention_mask", "cache_store_latents"}, refused
    return cfg


def same(a:Config, b:Config):
    "Equal in every field, type included (1 == True == 1.0 would pass for equal otherwise)."
    differ = {k: (v, b.__dict__[k]) for k, v in a.__dict__.items() if v != b.__dict__[k] or type(v) is not type(b.__dict__[k])}
    assert not differ and list(a.__dict__) == list(b.__dict__)
    assert [a.fingerprint(w) for w in FINGERPRINTS] == [b.fingerprint(w) for w in FINGERPRINTS]


def typed(cfg:Config) -> Config:
    "As the command line takes it: `~` at the beginning of a folder is the home."
    folders = {name: getattr(cfg, name) for name in ("run_dir", "checkpoint_dir", "preprocess_cache_dir")}
    return cfg.override(**{name: os.path.expanduser(value) for name, value in folders.items() if value is not None})


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("round")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cfg=configs())
@example(cfg=everything_changed())
@example(cfg=Config.preset("mini"))
@example(cfg=Config(text_column="none", dialogue_column='"none"', summary_column="NULL", run_dir="none", train_split="two\nlines"))
@example(cfg=Config(run_dir="~", preprocess_cache_dir="~/caches"))
def test_round_trip_python_json_command_line_python(cfg, folder):
    "Saved as JSON, loaded, typed as flags for a command that saves it again, loaded again: the same in every field, with the home for a `~`."
    first, second, third = folder / "first.json", folder / "second.json", folder / "third.json"
    same(cfg, Config.load(cfg.save(first)))
    assert status_of(["config", "save", str(second), *flag_words(Config.load(first))]) == 0
    same(typed(cfg), Config.load(second))
    assert status_of(["config", "save", str(third), "--config", str(second)]) == 0
    assert third.read_bytes() == second.read_bytes() == typed(cfg).save(first).read_bytes()


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(cfg=configs(), preset=st.sampled_from(sorted(PRESETS)))
def test_flags_win_over_any_preset(cfg, preset, folder):
    assert status_of(["config", "save", str(folder / "p.json"), "--preset", preset, *flag_words(cfg)]) == 0
    same(typed(cfg), Config.load(folder / "p.json"))


def test_everything_changed_is_everything():
    cfg = everything_changed()
    assert len(cfg.diff()) >= len(FIELDS) - 2
    same(cfg, Config(**json.loads(as_strict_json(cfg))))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(cfg=configs())
def test_the_references_own_save_example(cfg, folder):
    with open(folder / "my_config.json", "w") as f: json.dump(cfg.__dict__, f)
    same(cfg, Config.load(folder / "my_config.json"))


def test_the_references_own_example_word_for_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config()
    config.learning_rate = 1e-4
    config.batch_size = 16
    with open('my_config.json', 'w') as f: json.dump(config.__dict__, f)
    same(config, Config.load("my_config.json"))
    assert Config.load("my_config.json").diff() == dict(learning_rate=(2e-5, 1e-4), batch_size=(30, 16))


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(cfg=configs())
def test_diff_is_enough_to_make_it_again(cfg):
    same(cfg, Config().override(**{k: ours for k, (_, ours) in cfg.diff().items()}))
    same(cfg, copy.deepcopy(cfg))


# --- what is refused --------------------------------------------------------------------------------------------------

LONG = "1" + "0" * 5000
FILES = {  # content of a config file -> words of the error
    "unknown key": ('{"batch_siz": 3}', ["batch_siz", "Perhaps you meant 'batch_size'?"]),
    "unknown key after good ones": ('{"batch_size": 3, "nonsense": 1}', ["'nonsense'"]),
    "empty key": ('{"": 1}', ["unknown parameter ''"]),
    "text for a bool": ('{"use_tui": "true"}', ["use_tui must be bool, got 'true' (str)"]),
    "number for a bool": ('{"use_tui": 1}', ["use_tui must be bool, got 1 (int)"]),
    "bool for an int": ('{"batch_size": true}', ["batch_size must be int, got True (bool)"]),
    "float for an int": ('{"batch_size": 1.0}', ["batch_size must be int, got 1.0 (float)"]),
    "exponent for an int": ('{"batch_size": 1e3}', ["batch_size must be int, got 1000.0 (float)"]),
    "text for a number": ('{"learning_rate": "1e-4"}', ["learning_rate must be float, got '1e-4' (str)"]),
    "null where there must be a value": ('{"batch_size": null}', ["batch_size must be int, got None"]),
    "a list as a value": ('{"device": ["cuda"]}', ["device must be str, got ['cuda'] (list)"]),
    "an object as a value": ('{"device": {"type": "cuda"}}', ["device must be str"]),
    "NaN": ('{"learning_rate": NaN}', ["NaN is not a usable number"]),
    "infinity": ('{"learning_rate": -Infinity}', ["-Infinity is not a usable number"]),
    "overflow to infinity": ('{"learning_rate": 1e400}', ["learning_rate must be"]),
    "huge whole number for a float": ('{"learning_rate": 1%s}' % ("0" * 400), ["learning_rate must be"]),
    "huge whole number": ('{"seed": %d}' % 2**70, ["seed must be"]),
    "number of 5,001 digits": ('{"batch_size": %s}' % LONG, []),
    "number of 5,001 digits for a float": ('{"learning_rate": %s}' % LONG, []),
    "out of bounds": ('{"batch_size": 0}', ["batch_size must be >= 1", "got 0"]),
    "unknown choice": ('{"attn_implementation": "flash"}', ["flash_attention_2, sdpa, eager", "got 'flash'"]),
    "misspelt choice": ('{"attn_implementation": "flash_attention"}', ["Perhaps you meant 'flash_attention_2'?"]),
    "impossible combination": ('{"middle_num_heads": 3}', ["middle_num_heads=3 must divide latent_dim=256"]),
    "a key twice": ('{"batch_size": 3, "batch_size": 4}', ["'batch_size' appears twice"]),
    "a list at the top": ('[{"batch_size": 3}]', ["must hold a JSON object", "list"]),
    "a text at the top": ('"batch_size"', ["must hold a JSON object", "str"]),
    "null at the top": ("null", ["must hold a JSON object"]),
    "empty": ("", []),
    "blank": (" \n ", []),
    "cut off": ('{"batch_size": 3', ["is not JSON", "line 1"]),
    "trailing comma": ('{"batch_size": 3,\n}', ["is not JSON", "line"]),
    "comment": ('{"batch_size": 3} // small', ["is not JSON", "line 1, column 19"]),
    "single quotes": ("{'batch_size': 3}", ["is not JSON"]),
    "deep nesting": ('{"batch_size": %s1%s}' % ("[" * 100_000, "]" * 100_000), ["nested too deeply"]),
    "line break in a text": ('{"run_dir": "a\nb"}', ["is not JSON", "line 1"]),
    "lone surrogate": ('{"run_dir": "\\ud800"}', ["run_dir must be"]),
    "NUL in a text": ('{"run_dir": "a\\u0000b"}', ["run_dir must be"]),
    "not UTF-8": ('{"run_dir": "caf\xe9"}'.encode("latin-1"), ["is not UTF-8"]),
    "UTF-16": ('{"batch_size": 3}'.encode("utf-16"), ["is not UTF-8"]),
    "binary": (bytes(range(256)), []),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_one_clear_error(case, tmp_path):
    content, words = FILES[case]
    path, base = tmp_path / "wrong.json", Config.preset("mini")
    before = copy.deepcopy(base)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as info: Config.load(path, base)
    message = str(info.value)
    assert str(path) in message and all(w in message for w in words), message
    assert len(message) < 1000 and "\n" not in message.replace(str(path), "")
    same(base, before)


def test_a_byte_order_mark_is_read_or_named(tmp_path):
    path = tmp_path / "bom.json"
    path.write_bytes(b'\xef\xbb\xbf{"batch_size": 3}')
    try: assert Config.load(path).batch_size == 3
    except ConfigError as e: assert "BOM" in str(e) and "bom.json" in str(e)


@pytest.mark.parametrize("path", ["missing.json", "missing/config.json", ".", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_read_is_a_clear_error(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError): Config.load(path)


@pytest.mark.parametrize("path", ["", ".", "folder", "file/x.json", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_written_is_a_clear_error(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("")
    before = sorted(Path().rglob("*"))
    with pytest.raises(ConfigError): Config().save(path)
    assert sorted(Path().rglob("*")) == before


def test_an_impossible_config_is_not_saved(tmp_path):
    "Assignments check one field at a time, so that two that belong together can follow one another; saving checks the whole."
    cfg = Config()
    cfg.middle_num_heads = 3
    with pytest.raises(ConfigError, match="must divide"): cfg.save(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values = st.recursive(plain, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.text(max_size=3), v, max_size=2), max_leaves=4)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.dictionaries(st.sampled_from([*FIELDS, "nonsense"]), json_values, max_size=4))
def test_any_json_object_is_taken_whole_or_refused_whole(values, folder):
    path, base = folder / "any.json", Config.preset("mini")
    before = copy.deepcopy(base)
    path.write_text(json.dumps(values))
    try: got = Config.load(path, base)
    except ConfigError as e: assert str(path) in str(e)
    else:
        assert set(got.diff(base)) <= set(values)
        assert all(getattr(got, k) == v and (type(getattr(got, k)) is type(v) or type(v) is int) for k, v in values.items())
    same(base, before)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data, folder):
    (folder / "bytes.json").write_bytes(data)
    try: assert isinstance(read_json(folder / "bytes.json"), dict)
    except ConfigError as e: assert "bytes.json" in str(e)


WRONG = [None, True, "true", 1.0, 1, -1, 0, math.nan, math.inf, 10**400, 2**70, [], {}, b"x", "no such choice", "\0", "\ud800"]


@pytest.mark.parametrize("name", FIELDS)
def test_every_way_in_has_the_same_rule(name):
    "Construction, assignment and override accept and refuse the same values; a refused assignment changes nothing."
    for value in [*WRONG, another(name)]:
        cfg, held = Config(), []
        try: setattr(cfg, name, value); held.append(cfg)
        except ConfigError as e:
            assert name in str(e) and len(str(e)) < 500
            same(cfg, Config())
            for way in (lambda: Config(**{name: value}), lambda: Config().override(**{name: value})):  # noqa: B023 (called at once)
                with pytest.raises(ConfigError, match=name): way()
        if not held: continue
        stored = getattr(cfg, name)
        assert stored == value and type(stored) in (kind_of(FIELDS[name])[0], type(None))
        for way in (lambda: Config(**{name: value}), lambda: Config().override(**{name: value})):  # noqa: B023
            try: assert getattr(way(), name) == stored
            except ConfigError as e: assert "Impossible configuration" in str(e)


def test_a_misspelt_name_is_refused_everywhere_with_the_nearest():
    for way in (lambda: Config(learning_rat=1), lambda: Config().override(learning_rat=1), lambda: setattr(Config(), "learning_rat", 1)):
        with pytest.raises(ConfigError, match="Perhaps you meant 'learning_rate'?"): way()


@pytest.mark.parametrize("name", ["mni", "", None, ["mini"], 3])
def test_an_unknown_preset_is_refused(name):
    with pytest.raises(ConfigError, match="there are reference, mini"): Config.preset(name)


def test_an_impossible_combination_names_both_values():
    for values, words in ((dict(middle_num_heads=3), ["middle_num_heads=3", "latent_dim=256"]), (dict(adapter_num_heads=3), ["adapter_num_heads=3", "gpt2_hidden_dim=640"]),
                          (dict(latent_dim=12), ["middle_use_rope", "latent_dim=12", "middle_num_heads=4"]),
                          (dict(cache_store_target_ids=False), ["cache_store_target_attention_mask", "cache_store_target_ids"]),
                          (dict(teach_encoder_summaries=0.8), ["teach_encoder_dialogues=0.3", "teach_encoder_summaries=0.8"]),
                          (dict(cache_store_latents=True, cache_use_embeddings_for_training=False), ["cache_store_latents", "cache_use_embeddings_for_training=False"]),
                          (dict(teacher_kl_weight=0.5), ["teacher_kl_weight=0.5", "cache_store_text"])):
        for way in (lambda: Config(**values), lambda: Config().override(**values), lambda: unchecked(**values).validate()):  # noqa: B023
            with pytest.raises(ConfigError) as info: way()
            assert all(w in str(info.value) for w in words)


# --- fingerprints -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", FIELDS)
def test_a_field_changes_exactly_the_fingerprints_it_says(name):
    base, changed = Config(), unchecked(**{name: another(name)})
    moved = {what for what in FINGERPRINTS if changed.fingerprint(what) != base.fingerprint(what)}
    assert moved == set(FIELDS[name].metadata["affects"]) == {what for what in FINGERPRINTS if name in fields_of(what)}


def test_how_a_model_is_used_and_where_things_lie_change_no_fingerprint():
    for name in ("temperature", "top_p", "top_k", "do_sample", "num_beams", "no_repeat_ngram_size", "end_probability",
                 "max_generation_length", "use_tui", "run_dir", "checkpoint_dir", "save_every", "num_workers",
                 "prefetch_factor", "preprocess_cache_dir", "async_checkpointing", "device"):
        assert FIELDS[name].metadata["affects"] == (), name


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(a=configs(), b=configs())
def test_fingerprints_are_equal_when_their_fields_are(a, b):
    for what in FINGERPRINTS:
        assert (a.fingerprint(what) == b.fingerprint(what)) == all(getattr(a, k) == getattr(b, k) for k in fields_of(what))
        mixed = unchecked(**(a.__dict__ | {k: getattr(b, k) for k in fields_of(what)}))
        assert mixed.fingerprint(what) == b.fingerprint(what)


def test_a_fingerprint_is_the_same_in_another_process():
    "It is written into caches and checkpoints: it must not depend on what differs from process to process, as `hash` does."
    code = f"from latent_summ.config import Config; print(*(Config().fingerprint(w) for w in {FINGERPRINTS}))"
    env = lambda seed: os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    seen = {subprocess.run([sys.executable, "-c", code], env=env(seed), capture_output=True, text=True).stdout for seed in "12"}
    here = [Config().fingerprint(w) for w in FINGERPRINTS]
    assert seen == {" ".join(here) + "\n"} and len(set(here)) == 3 and {len(h) for h in here} == {16}


def test_an_unknown_fingerprint_is_refused():
    with pytest.raises(ConfigError, match="there are cache, model, training"): Config().fingerprint("cach")
