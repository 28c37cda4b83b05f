"""Files of latents: every format that was ever written is read, and what is wrong with a file is said."""
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from latent_summ.runtime import CacheError, DataError
from latent_summ.train.checkpoint import content_hash
from latent_summ.use.latents import FORMAT, FORMATS, LatentFile, noisy, read_latents, source_hash, write_latents

VECTORS = Path(__file__).resolve().parent / "vectors"
MADE_BY = dict(kind="document", encoder=dict(revision="0123456789abcdef", tokenizer="fedcba9876543210"), pooling="mean", shape="2 x 4", normalized=True,
               normalizer=None, compression="00112233445566aa", encoder_top=None)
WRITTEN = [[[.6, .8, 0, 0], [0, 0, 5 / 13, -12 / 13]], [[1, 0, 0, 0], [.5, -.5, .5, .5]], [[-8 / 17, 0, 15 / 17, 0], [2 / 3, -1 / 3, 2 / 3, 0]]]
IDS = ["chat-1", 2, "čaj"]
TEXTS = ["Anna: hi\nBen: hello", "Ben: bye", "čaj"]
FACTS = [b"Anna\nBen\n7 pm", b"", "čaj".encode()]


def vector(version: int) -> Path: return VECTORS / f"latents-{version}.safetensors"


def latents() -> torch.Tensor: return torch.tensor(WRITTEN, dtype=torch.float32)


@pytest.mark.parametrize("version", FORMATS)
def test_every_format_is_read(version):
    "The numbers, ids and fingerprint that the file of this format was written with."
    file = LatentFile(vector(version), dict(document=MADE_BY))
    assert (file.format, file.ids, file.summary, file.made_by, file.noise) == (version, IDS, False, MADE_BY, 0.0)
    assert torch.allclose(file.rows(), latents(), atol=0.005)
    assert torch.equal(file.rows(1, 2), file.rows()[1:2])
    if version > 1: assert [file.find(text) for text in TEXTS] == [[0], [1], [2]] and file.find("another") == []
    assert file.facts() == (FACTS if version > 2 else None)


def test_there_is_a_file_of_each_format():
    assert {p.name for p in VECTORS.glob("latents-*")} == {vector(n).name for n in FORMATS} and FORMATS[-1] == FORMAT


def test_what_is_written_today_is_the_file_of_the_newest_format(tmp_path):
    "Header, places and bytes of all tensors: a change of the format needs a new number, and a new file."
    def content(path: Path) -> tuple:
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        return json.loads(data[8:end]), data[end:] # the header's own order is left to chance by safetensors
    assert content(write_latents(tmp_path / "a", latents(), MADE_BY, IDS, TEXTS, facts=FACTS)) == content(vector(FORMAT))
    assert content(write_latents(tmp_path / "b", latents(), MADE_BY, IDS, TEXTS)) == content(vector(2)), "without facts, a file that older versions read"


@pytest.mark.parametrize("facts", [[], FACTS[:2], ["Anna", "", ""], [b"x" * 256, b"", b""]])
def test_facts_that_do_not_fit(tmp_path, facts):
    with pytest.raises(DataError, match="at most 255 bytes for each of the 3 rows"): write_latents(tmp_path / "a", latents(), MADE_BY, facts=facts)


@pytest.mark.parametrize("lengths", [[1, 1], [13, 0, 5], [255, 255, 255]])
def test_facts_whose_lengths_are_others(tmp_path, lengths):
    tensors = dict(sorted((load(vector(3).read_bytes()) | dict(fact_lengths=torch.tensor(lengths, dtype=torch.uint8))).items()))
    data = vector(3).read_bytes()
    text = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])["__metadata__"]["latent_summ"]
    (tmp_path / "a").write_bytes(save(tensors, dict(latent_summ=text, sha256=content_hash(tensors, text))))
    with pytest.raises(CacheError, match="do not fit together"): LatentFile(tmp_path / "a")


def with_header(path: Path, tmp_path: Path, **changes) -> Path:
    "The same tensors under a changed header, with a right hash."
    data = path.read_bytes()
    tensors = dict(sorted(load(data).items()))
    meta = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    text = json.dumps(json.loads(meta["latent_summ"]) | changes)
    (tmp_path / "changed").write_bytes(save(tensors, dict(latent_summ=text, sha256=content_hash(tensors, text))))
    return tmp_path / "changed"


@pytest.mark.parametrize("version", FORMATS)
def test_a_file_that_is_cut_short(version, tmp_path):
    data = vector(version).read_bytes()
    for end in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:end])
        with pytest.raises(CacheError, match="damaged or cut short"): read_latents(tmp_path / "cut")


@pytest.mark.parametrize("version", FORMATS)
def test_a_file_of_another_compressor(version):
    other = MADE_BY | dict(compression="ffff000011112222")
    with pytest.raises(CacheError, match="compression '00112233445566aa', not 'ffff000011112222'"):
        read_latents(vector(version), dict(document=other))
    with pytest.raises(CacheError, match="no file of latents of this package"): read_latents(vector(version), dict(summary=MADE_BY))


def test_a_file_of_a_later_version(tmp_path):
    with pytest.raises(CacheError, match=r"has format 4, this version reads 1 to 3\. A later version .* pip install -U latent_summ"):
        read_latents(with_header(vector(2), tmp_path, format=4))
    with pytest.raises(CacheError, match=r"has format 0, this version reads 1 to 3\.$"): read_latents(with_header(vector(2), tmp_path, format=0))
    for odd in ("2", None, True, [2]):
        with pytest.raises(CacheError, match="no file of latents"): read_latents(with_header(vector(2), tmp_path, format=odd))


def test_other_tensors_are_left_alone(tmp_path):
    "What a later minor version may add beside the latents."
    data = vector(2).read_bytes()
    tensors = dict(sorted((load(data) | dict(side=torch.arange(9, dtype=torch.uint8))).items()))
    meta = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])["__metadata__"]["latent_summ"]
    (tmp_path / "more").write_bytes(save(tensors, dict(latent_summ=meta, sha256=content_hash(tensors, meta))))
    assert read_latents(tmp_path / "more").ids == IDS
    without = {k: v for k, v in tensors.items() if k != "scales"}
    (tmp_path / "less").write_bytes(save(without, dict(latent_summ=meta, sha256=content_hash(without, meta))))
    with pytest.raises(CacheError, match="it has no scales"): read_latents(tmp_path / "less")


def test_rows_come_from_a_memory_map(tmp_path):
    "One row of a file of 40 MB needs no 40 MB."
    import resource
    path = write_latents(tmp_path / "large", torch.randn(20_000, 8, 256), dict(kind="document", normalized=True))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = LatentFile(path, verify=False)
    assert file.rows(19_999).shape == (1, 8, 256) and len(file) == 20_000 and file.names()[-1] == 19_999
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_flipped_byte_is_found_unless_nobody_looks(tmp_path):
    data = bytearray(vector(2).read_bytes())
    data[-1] ^= 1
    (tmp_path / "flipped").write_bytes(data)
    with pytest.raises(CacheError, match="does not match its own hash"): LatentFile(tmp_path / "flipped")
    assert len(LatentFile(tmp_path / "flipped", verify=False)) == 3


def test_noise_is_recorded_and_cannot_be_drawn_again(tmp_path):
    one, other = (LatentFile(write_latents(tmp_path / name, latents(), MADE_BY, noise=0.3)) for name in "ab")
    assert one.noise == 0.3 and not torch.equal(one.rows(), other.rows())
    assert torch.allclose(one.rows().norm(dim=-1), torch.ones(3, 2))
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="must be a number >= 0"): noisy(latents(), wrong)


def test_hashes_of_sources(tmp_path):
    path = write_latents(tmp_path / "a", latents(), MADE_BY, sources=["x\r\ny", "x\ny ", "z\ud800"])
    assert LatentFile(path).find("x\ny") == [0, 1] and len(source_hash("")) == 32
    with pytest.raises(CacheError, match="keeps no hashes"): LatentFile(vector(1)).find("x")
    for wrong in (["a"], ["a", "b", 3]):
        with pytest.raises(DataError, match="one text for each of the 3 rows"): write_latents(tmp_path / "b", latents(), MADE_BY, sources=wrong)
    assert not (tmp_path / "b").exists()


def test_encode_and_search_by_command(tmp_path, capsys):
    "Rows of a file keep their ids; an empty one is told, and the text itself is its own nearest."
    from latent_summ.ui.cli import status_of
    chats = {"a": "Anna: can you lend me your tent?\nBen: sure", "b": "Carl: the match is on Friday\nDora: see you at 3", "c": ""}
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(dict(id=k, dialogue=text)) + "\n" for k, text in chats.items()))
    file = str(tmp_path / "chats.latents")
    assert status_of(["encode", "--model", "mini", "--input", str(tmp_path / "chats.jsonl"), "--output", file]) == 0
    said = capsys.readouterr()
    assert "3 texts" in said.out and "1 of 3 rows are empty" in said.err
    assert status_of(["search", "--model", "mini", chats["b"], file, "--top", "1", "--ids"]) == 0
    assert capsys.readouterr().out.split() == ["1.000", "b"]
    assert status_of(["search", "--model", "mini", "Carl: hi", str(tmp_path / "none")]) == 1 and "There is no file" in capsys.readouterr().err
