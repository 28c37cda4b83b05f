"""A refused command changes nothing, and is refused before hours are spent.

Attack: on a finished training, `--resume` with other rows (one word of one row, one row less, other validation rows) and `--overwrite` with everything that
cannot work: missing and unfit models, rows, columns, caches and folders; no text may be embedded, and afterwards every file must be unchanged. Refused new
runs, and commands that name missing things, leave no folder. And (elsewhere) resuming with other settings.
"""
import json
from pathlib import Path
from unittest.mock import patch

import forks
import pytest
from test_families import SMALL, saved
from test_world import snapshot, tiny
from transformers import AutoModel

from latent_summ.config import Config, LatentSummError
from latent_summ.data.messenger import chats
from latent_summ.encode.embedder import Embedder
from latent_summ.train.stages import run_pipeline

ALSO = [f"test_world.py::{n}" for n in ("test_a_refused_resume_changes_nothing", "test_nothing_to_resume_makes_no_folder", "test_saving_onto_a_file",
                                        "test_one_of_several_processes_without_a_rank")]


def write_rows(path:Path, rows:list): path.write_text("".join(json.dumps({k: r[k] for k in ("dialogue", "summary")}) + "\n" for r in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Config:
    "A finished training on files of one's own: its config."
    work = tmp_path_factory.mktemp("refused")
    (work / "chats").mkdir()
    write_rows(work / "chats" / "train.jsonl", chats(24))
    write_rows(work / "chats" / "validation.jsonl", chats(4, split="validation"))
    saved(AutoModel, "bert", SMALL, work / "narrow")
    (work / "a file").write_text("mine")
    caps = [f"pretrain_{half}_max_samples{end}" for half in ("middle", "adapter") for end in ("", "_wikitext")]
    off = dict(wikitext_dataset="", pretrain_middle_epochs=0, pretrain_adapter_epochs=0) | dict.fromkeys(caps)
    cfg = tiny(work, dataset_name=str(work / "chats"), **off)
    run_pipeline(cfg)
    return cfg


def is_refused(cfg:Config, work:Path, **how) -> str: # the message
    "Nothing is embedded, and no file of `work` changes."
    before = snapshot(work)
    with patch.object(Embedder, "batch", side_effect=AssertionError("a text was embedded")), pytest.raises(LatentSummError) as e: run_pipeline(cfg, **how)
    assert snapshot(work) == before
    return str(e.value)


def one_word(rows:list): rows[3]["summary"] += " Really."
def one_row_less(rows:list): rows.pop()
def another_order(rows:list): rows.reverse()


@pytest.mark.parametrize("change", [one_word, one_row_less, another_order])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_resumed_with_other_rows(trained, change, split):
    work = Path(trained.run_dir).parent
    file = work / "chats" / f"{split}.jsonl"
    kept = file.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in kept.splitlines()]
    change(rows)
    write_rows(file, rows)
    try: assert f"trained on other rows: those of pairs/{split} have changed" in is_refused(trained, work, resume=True)
    finally: file.write_text(kept, encoding="utf-8")


def test_resumed_with_the_same_rows(trained): run_pipeline(trained, resume=True)


UNFIT = { # what is asked for -> what the message says
    "no encoder": (dict(modernbert_model="{work}/none"), "none"), "no decoder": (dict(gpt2_model="{work}/none.gguf"), "is not a file here"),
    "another width": (dict(modernbert_model="{work}/narrow"), "32 wide"),
    "too few positions": (dict(modernbert_model="{work}/narrow", modernbert_hidden_dim=32, max_seq_len=600), "has 512 positions"),
    "untaught": (dict(modernbert_model="{work}/narrow", modernbert_hidden_dim=32), "was taught latent tokens"), "no rows": (dict(dataset_name="{work}/none.jsonl"), "none.jsonl"),
    "no column": (dict(dialogue_column="talk"), "talk"), "no source": (dict(pretrain_middle_epochs=1), "has no source"),
    "nothing pretrained": (dict(run_pretraining=False, pretrain_best_model_filename="none.pt"), "starts from"),
    "no cache": (dict(run_preprocessing=False, max_seq_len=40), "With run_preprocessing=False"),
    "a file for a cache": (dict(preprocess_cache_dir="{work}/a file/cache"), "is a file"),
    "no stage": (dict(finetune_middle_epochs=0, finetune_adapter_epochs=0), "Nothing to train"),
    "too many layers": (dict(training_phase="phase2", num_encoder_unfrozen_layers=99), "99"), "sharded alone": (dict(shard_decoder=True), "torchrun"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_overwriting_with_what_cannot_work(trained, case):
    work, (changes, says) = Path(trained.run_dir).parent, UNFIT[case]
    changed = trained.override(**{k: v.format(work=work) if isinstance(v, str) else v for k, v in changes.items()})
    assert says in is_refused(changed, work, overwrite=True)
    assert says in is_refused(changed.override(run_dir=str(work / "new" / "run")), work) and not (work / "new").exists()


def test_a_run_folder_that_cannot_be(trained):
    work = Path(trained.run_dir).parent
    assert "run folder" in is_refused(trained.override(run_dir=str(work / "a file" / "run")), work)
    assert "already holds a run" in is_refused(trained, work)


@pytest.mark.parametrize("words", ["train --preset mini --dataset-name none.jsonl", "train --preset mini --gpt2-model none.gguf", "cache --preset mini --dataset-name none.jsonl",
                                   "evaluate --model none --output out", "evaluate --model mini --output taken/out"])
def test_commands(words, tmp_path):
    (tmp_path / "taken").write_text("mine")
    before = snapshot(tmp_path)
    done = forks.run(["-m", "latent_summ", *words.split()], cwd=tmp_path)
    assert done.returncode != 0 and done.stderr and "Traceback" not in done.stderr, done.stderr
    assert snapshot(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["taken"], done.stderr


def test_a_checkpoint_of_the_first_version_says_its_steps(trained):
    "It kept no hashes of rows: a stage of another length is still refused at once."
    from latent_summ.train.checkpoint import load_checkpoint, save_checkpoint
    from latent_summ.train.trainer import step_files
    work = Path(trained.run_dir).parent
    newest = step_files(work / "run" / "checkpoints")[-1]
    kept = newest.read_bytes()
    tensors, meta = load_checkpoint(newest)
    meta.pop("rows")
    save_checkpoint(newest, tensors, meta)
    rows = (work / "chats" / "train.jsonl").read_text(encoding="utf-8")
    write_rows(work / "chats" / "train.jsonl", chats(6))
    try: assert "those have changed (2 steps then, 1 now)" in is_refused(trained, work, resume=True)
    finally:
        newest.write_bytes(kept)
        (work / "chats" / "train.jsonl").write_text(rows, encoding="utf-8")
