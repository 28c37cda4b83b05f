"""Test and validation rows never reach training; a file named after a split is that split.

Attack: folders and files as people name them (camel case, capitals, numbers at the end, `dev` for validation, folders for splits, one file without a
split's name next to them), drawn at random. No row of a test or validation file may be among the training rows, whatever is named: the folder, its stem, or
one of its files.
"""
import itertools

import pytest

from latent_summ.config import Config
from latent_summ.data.formats import rows_as_bytes
from latent_summ.data.sources import load_pairs, load_texts
from latent_summ.data.local import local_files
from latent_summ.runtime import DataError

ALSO = [f"test_formats.py::{n}" for n in ("test_case_split_by_name",)] + [f"test_sources.py::{n}" for n in ("test_two_sides_are_the_whole",)]
TRAIN = ["train", "Train", "TRAIN", "training", "TrainingSet", "TRAININGSET", "train-set", "trainset", "train_split"]
HELD_OUT = {"validation": ["validation", "Valid", "VAL", "dev", "DevSet", "ValidationSet", "validation_set", "valset", "development"],
            "test": ["test", "Test", "TEST", "TestSet-1", "testset", "TESTSET_2", "testing", "test-set", "held.test"]}
AROUND = ["{}", "chats-{}", "My{}", "{}-v2", "Chats.{}", "2026_{}", "MTS-Dialog-{}-MEDIQA-2023"]
ENDS = [".csv", ".jsonl", ".JSON", ".csv.gz"]


def rows(split): return [dict(id=f"{split} {i}", dialogue=f"Ann: {split} {i}", summary=f"It is {i}.") for i in range(3)]


def put(path, split):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rows_as_bytes(rows(split), path.name.lower()))


def names(draw):
    "A name for each split, of one pattern."
    around, end = draw.choice(AROUND), draw.choice(ENDS)
    words = dict(train=draw.choice(TRAIN), **{split: draw.choice(found) for split, found in HELD_OUT.items()})
    if around == "My{}": words = {split: word[0].upper() + word[1:] for split, word in words.items()}
    return {split: around.format(word) + end for split, word in words.items()}


def ids(name, split="train"): return [r["id"].split()[0] for r in load_pairs(Config(dataset_name=str(name), preprocess_validation_fraction=1e-9), split)]


def test_files_are_the_splits_they_say(tmp_path, draw, attacks, capsys):
    for n in range(150):
        folder, named = tmp_path / str(n), names(draw)
        for split, name in named.items(): put(folder / name, split)
        if draw.random() < 0.5: put(folder / "notes.csv", "notes")
        for split in named: assert set(ids(folder, split)) == {split}, named
        for split, name in named.items():
            assert set(ids(folder / name, split)) == {split}, name
            try: assert set(ids(folder / name)) == {"train"}, name
            except DataError as e: assert "no train split" in str(e), (named, e)
    assert "by the names of its files" in capsys.readouterr().err
    attacks(150 * 9)


@pytest.mark.parametrize(("train", "test"), [*itertools.product(["train", "Train", "TRAINING", "TrainingSet"], ["test", "Test", "TestSet", "TESTING"])])
def test_folders_are_the_splits_they_say(tmp_path, train, test):
    put(tmp_path / "data" / train / "chats.csv", "train")
    put(tmp_path / "data" / test / "chats.csv", "test")
    for name in ("data", f"data/{train}/chats.csv", f"data/{test}/chats.csv"):
        assert set(ids(tmp_path / name)) == {"train"} and set(ids(tmp_path / name, "test")) == {"test"}, name


@pytest.mark.parametrize(("split", "name"), [(split, name) for split, found in HELD_OUT.items() for name in found])
def test_a_test_file_alone_is_not_trained_on_unless_asked(tmp_path, split, name):
    path = tmp_path / f"{name}.csv"
    put(path, split)
    with pytest.raises(DataError, match=f"has no train split; it has {split}. Name one with --train-split"): ids(path)
    assert set(ids(path, split)) == {split}
    if name not in ("test", "dev"): return
    assert len(load_pairs(Config(dataset_name=str(path), train_split=name, preprocess_validation_fraction=1e-9))) == 3


def test_an_unnamed_file_beside_a_test_file_trains_without_it(tmp_path):
    put(tmp_path / "chats.csv", "all")
    put(tmp_path / "chats-TestSet.csv", "test")
    assert set(ids(tmp_path)) == {"all"} and set(ids(tmp_path, "test")) == {"test"}


def test_two_splits_in_one_name_are_refused(tmp_path):
    put(tmp_path / "train-and-test.csv", "both")
    with pytest.raises(DataError, match="says two splits, train and test. Rename it"): ids(tmp_path / "train-and-test.csv")


def test_words_that_only_hold_a_split_name_none(tmp_path):
    for name in ("trainer", "latest", "protest", "device", "contest", "restrained", "evaluation", "devil"):
        put(tmp_path / f"{name}.csv", name)
        assert list(local_files(str(tmp_path / f"{name}.csv"), Config())) == ["all"], name


def test_texts_keep_their_splits_too(tmp_path):
    for split in ("train", "test"): (tmp_path / f"{split}.txt").write_text(f"a text of {split}\nanother text of {split}\n")
    assert all("train" in r["text"] for r in load_texts(Config(preprocess_validation_fraction=1e-9), str(tmp_path)))


@pytest.mark.parametrize("name", ["test", "Test", "TestSet", "val", "validation", "heldout"])
def test_a_held_out_folder_alone_is_not_trained_on(tmp_path, name):
    put(tmp_path / name / "chats.csv", "held out")
    for path in (tmp_path / name, tmp_path / name / "chats.csv"):
        with pytest.raises(DataError, match="has no train split"): load_pairs(Config(dataset_name=str(path)))


@pytest.mark.parametrize("name", ["test", "train"])
def test_a_folder_named_after_a_split_finds_the_others(tmp_path, name):
    for split in ("train", "test"): put(tmp_path / split / "chats.csv", split)
    assert set(ids(tmp_path / name)) == {"train"} and set(ids(tmp_path / name, "test")) == {"test"}


def test_a_folder_of_projects_is_no_split(tmp_path):
    put(tmp_path / "dev" / "chats.csv", "all")
    assert set(ids(tmp_path / "dev" / "chats.csv")) == {"all"} == set(ids(tmp_path / "dev"))
