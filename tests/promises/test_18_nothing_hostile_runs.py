"""A malicious pickle never executes; hostile files of any kind are rejected or read as plain data.

Attack: checkpoints whose pickle calls a function, in every way a pickle can and in every container format of torch (zip, legacy stream, tar, zip in a zip);
model folders that bring their own code or a pickled weight file; caches whose list of files points outside of them, and caches made of links; files that
unpack to a thousand times their size; names that are HTML. The file that the payload would create must not exist afterwards.
"""
import io
import json
import lzma
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from faults import ROOT, contents
from test_cache import FINGERPRINT, SHARD, rows, write

import latent_summ
from latent_summ.encode.cache import Cache, seal
from latent_summ.encode.cache_writer import CacheWriter
from latent_summ.train.checkpoint import load_checkpoint, save_checkpoint
from latent_summ.config import Config, LatentSummError
from latent_summ.runtime import CacheError, CheckpointError, ModelError

ALSO = []


class Payload:
    def __init__(self, mark): self.mark = str(mark)
    def __reduce__(self): return os.system, (f"touch {self.mark}",)


def zipped(data:bytes, name="archive/data.pkl") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z: z.writestr(name, data); z.writestr("archive/version", "3\n"); z.writestr("archive/byteorder", "little")
    return out.getvalue()


def saved(obj, **how) -> bytes:
    out = io.BytesIO()
    torch.save(obj, out, **how)
    return out.getvalue()


def tarred(data:bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def hostile(mark) -> dict:
    p, m = Payload(mark), str(mark).encode()
    call = pickle.dumps(p, 2)
    return {"zip": saved(p),
            "in a checkpoint": saved(dict(format=1, meta="{}", tensors=dict(model=p), sha256="")), "as a key": saved({"format": 1, "tensors": [p, torch.zeros(2)]}),
            "legacy": saved(p, _use_new_zipfile_serialization=False), "plain pickle": call, **{f"protocol {n}": zipped(pickle.dumps(p, n)) for n in range(6)}, "tar": tarred(call),
            "zip in a zip": zipped(saved(p)), "pickle twice": zipped(pickle.dumps(dict(a=1), 2)[:-1] + b"0" + call[2:]), "INST": zipped(b"(S'touch " + m + b"'\nios\nsystem\n."),
            "OBJ": zipped(b"(cos\nsystem\nS'touch " + m + b"'\no."), "eval": zipped(b"c__builtin__\neval\n(S'__import__(\"os\").system(\"touch " + m + b"\")'\ntR."),
            "torch's own loader": zipped(b"ctorch\nload\n(S'" + m + b"'\ntR."), "a function of ours": zipped(b"clatent_summ.runtime\natomic_write\n(S'" + m + b"'\ntR."),
            "setattr": zipped(b"c__builtin__\nsetattr\n(cos\nsystem\nS'x'\nI1\ntR."), "getattr": zipped(b"c__builtin__\ngetattr\n(cos\nenviron\nS'system'\ntR."),
            "__reduce__ of a module": saved(torch.nn.Linear(2, 2)), "endless": zipped(b"]" * 10**5 + b"."), "itself": zipped(b"]q\x00h\x00a.")}


@pytest.mark.parametrize("name", list(hostile("x")))
def test_a_pickle_with_a_payload(name, tmp_path, capfd):
    mark = tmp_path / "mark"
    (tmp_path / "best_model.pt").write_bytes(hostile(mark)[name])
    with pytest.raises(CheckpointError): load_checkpoint(tmp_path / "best_model.pt")
    with pytest.raises(LatentSummError):
        from latent_summ.use.share import read_model
        read_model(tmp_path / "best_model.pt")
    assert not mark.exists()


def test_the_payload_would_have_worked(tmp_path):
    "Or the tests above would show nothing."
    (tmp_path / "a.pt").write_bytes(hostile(tmp_path / "mark")["zip"])
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("how", ["own code", "pickled weights"])
def test_a_model_folder_that_brings_code(how, tmp_path, monkeypatch, capfd):
    from latent_summ.encode.backbones import load_encoder
    mark, folder = tmp_path / "mark", tmp_path / "encoder"
    shutil.copytree(Path(latent_summ.__file__).parent / "mini" / "encoder", folder)
    if how == "own code":
        for name in ("config.json", "tokenizer_config.json"):
            about = json.loads((folder / name).read_text())
            about["auto_map"] = {k: "evil.Evil" for k in ("AutoConfig", "AutoModel")} | {"AutoTokenizer": [None, "evil.Evil"]}
            about["model_type"] = "evil"
            (folder / name).write_text(json.dumps(about))
        (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    else:
        for f in folder.glob("*.safetensors"): f.unlink()
        (folder / "pytorch_model.bin").write_bytes(hostile(mark)["zip"])
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelError): load_encoder(Config.preset("mini").override(modernbert_model=str(folder)))
    assert not mark.exists()


# --- caches -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["../secret", "{outside}/secret", "sub/../../secret"])
def test_a_manifest_that_points_outside(name, tmp_path):
    folder = write(tmp_path / "cache").folder
    shard, state = folder / "rows-00000.jsonl", json.loads((folder / "manifest.json").read_text())
    (folder / "sub").mkdir()
    shutil.copy(shard, tmp_path / "secret")
    state["shards"][0]["name"] = name.format(outside=tmp_path)
    (folder / "manifest.json").write_text(json.dumps(state | dict(seal=seal(state))))
    with pytest.raises(CacheError): Cache.open(folder)


def test_nothing_is_written_through_links(tmp_path):
    "A cache folder whose files are links to somebody else's: making the cache anew replaces the links, not what they point to."
    folder = write(tmp_path / "cache").folder
    (tmp_path / "theirs").mkdir()
    for p in list(folder.iterdir()):
        p.rename(tmp_path / "theirs" / p.name)
        p.symlink_to(tmp_path / "theirs" / p.name)
    before = contents(tmp_path / "theirs")
    with CacheWriter(folder, FINGERPRINT, overwrite=True, shard_rows=SHARD) as w:
        w.add(rows()[::-1])
        w.finish()
    assert contents(tmp_path / "theirs") == before and Cache.open(folder).ids[0] == "row 19"


def test_a_checkpoint_is_not_written_through_a_link(tmp_path):
    (tmp_path / "theirs").write_text("mine")
    (tmp_path / "a.pt").symlink_to(tmp_path / "theirs")
    save_checkpoint(tmp_path / "a.pt", {}, {})
    assert (tmp_path / "theirs").read_text() == "mine" and not (tmp_path / "a.pt").is_symlink()


def test_overwriting_a_run_leaves_other_peoples_models(tmp_path):
    from latent_summ.train.run import open_run
    theirs = tmp_path / "models" / "theirs.pt"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    open_run(Config.preset("mini").override(run_dir=str(tmp_path / "run"), checkpoint_dir=str(theirs.parent)), overwrite=True)
    assert theirs.exists()


# --- files that unpack to far more ------------------------------------------------------------------------------------

BOMB = """
import resource, sys
from pathlib import Path
from latent_summ.config import Config, LatentSummError
from latent_summ.data.sources import load_pairs, load_texts
from latent_summ.data import files
import datasets
files._MOST_BYTES = 2**25  # as if the machine were smaller: the bombs can be, too
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000,) * 2)
for path in sys.argv[1:]:
    try: load_pairs(Config(dataset_name=path, preprocess_validation_fraction=0.5))
    except LatentSummError as e: print("refused:", e)
    else: print("read")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its size from /proc")
def test_bombs(tmp_path, attacks):
    "40 megabytes of one letter in 6 kilobytes, inside a row or as a whole file."
    part, inner = b"a" * 2**20, lzma.LZMACompressor(preset=0)
    squeezed = inner.compress(b'{"dialogue": "') + b"".join(inner.compress(part) for _ in range(40)) + inner.flush()
    (tmp_path / "a.jsonl.xz").write_bytes(squeezed)
    shutil.copy(tmp_path / "a.jsonl.xz", tmp_path / "b.json.xz")
    (tmp_path / "c.jsonl.gz").write_bytes(squeezed)
    done = subprocess.run([sys.executable, "-c", BOMB, *map(str, sorted(tmp_path.iterdir()))], env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
                          capture_output=True, text=True, timeout=300, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120)))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all(line.startswith("refused: ") for line in lines), lines
    assert "unpacks to more than" in lines[0] and "unpacks to more than" in lines[1]
    attacks(3)


# --- names and texts that are HTML ------------------------------------------------------------------------------------

def test_a_file_name_is_no_html(monkeypatch):
    import IPython.display

    from latent_summ.encode.progress import EmbedProgress
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda html, **_: shown.append(html.data))
    progress = EmbedProgress("embed <img src=x onerror=alert(1)>.jsonl train", 10)
    progress.face = "notebook"
    progress._show()
    assert shown and "<img" not in shown[0]
