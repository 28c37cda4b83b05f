"""Using a trained model: odd texts, many texts, streams, latents on disk, and the way to a hub and back."""
import json
import os
import re
import subprocess
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import forks
import pytest
import torch
from hub import COMMIT, Hub, _Handler, make_models

from latent_summ.use import codec, loading, share
from latent_summ.ui.chat import Chat
from latent_summ.config import Config, ConfigError
from latent_summ.encode.tokens import input_ids
from latent_summ.use.inference import Summarizer, _choice
from latent_summ.use.support import Claim, Support
from latent_summ.data.messenger import chats
from latent_summ.runtime import CacheError, CheckpointError, DataError
from latent_summ.train.stages import run_pipeline

ROOT = Path(__file__).resolve().parent.parent
TOKEN, WRONG = "hf_WriterWriterWriterWriter", "hf_WrongWrongWrongWrongWrong"
FEW = dict(use_bf16=False, messenger_rows=64, max_eval_samples=6, batch_size=16, pretrain_middle_max_samples=64, pretrain_middle_max_samples_wikitext=64,
           pretrain_adapter_max_samples=64, pretrain_adapter_max_samples_wikitext=64, pretrain_middle_epochs=1, pretrain_adapter_epochs=2, finetune_middle_epochs=1,
           finetune_adapter_epochs=2, max_generation_length=24)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    work = tmp_path_factory.mktemp("inference")
    return run_pipeline(Config.preset("mini").override(run_dir=str(work / "runs" / "tiny"), preprocess_cache_dir=str(work / "cache"), **FEW))


@pytest.fixture(scope="module")
def s(run): return Summarizer.from_pretrained(run)


@pytest.fixture(scope="module")
def texts(): return [r["dialogue"] for r in chats(20, split="test")]


# --- the same text, however it is asked for ---------------------------------------------------------------------------

def test_batch_size_and_order_never_change_a_text(s, texts):
    assert s.decoder.model.dtype is torch.float32
    alone = [s.summarize(t) for t in texts]
    assert len(set(alone)) > 10, "texts that differ show more"
    for size in (1, 3, 16):
        assert s.summarize(texts, batch_size=size, preprocess_batch_size=size) == alone
        assert s.summarize(texts[::-1], batch_size=size) == alone[::-1]


def test_latents_do_not_depend_on_the_batch(s, texts):
    together = s.encode(texts, preprocess_batch_size=7)
    assert together.dtype is torch.float32 and together.numpy().shape == (20, 8, 256)
    for i in (0, 9, 19): torch.testing.assert_close(s.encode(texts[i])[0], together[i], atol=1e-5, rtol=0)


def test_a_seed_repeats_and_leaves_the_generator_alone(s, texts):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = s.summarize(texts, do_sample=True, temperature=1.5, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert s.summarize(texts, do_sample=True, temperature=1.5, seed=1) == first != s.summarize(texts, do_sample=True, temperature=1.5, seed=2)
    assert "".join(s.stream(texts[0], do_sample=True, seed=3)) == s.summarize(texts[0], do_sample=True, seed=3)


def test_beams_are_streamed_whole_and_judged_with_candidates(s, texts):
    whole = s.summarize(texts[:3], num_beams=3)
    assert [list(s.stream(t, num_beams=3)) for t in texts[:3]] == [[t] if t else [] for t in whole]
    assert s.decode(s.compress_meaning(s.encode(texts[:3])), num_beams=3, batch_size=1) == whole
    with mock.patch.object(codec, "generate", wraps=codec.generate) as writing: s.summarize(texts[:3], num_beams=3, candidates=2, seed=1)
    ways = [(call.args[2].num_beams, call.args[2].do_sample) for call in writing.call_args_list]
    assert ways == [(3, s.cfg.do_sample), (1, True)], "the first with beams, the second sampled"
    with pytest.raises(ConfigError, match="num_beams must be >= 1"): s.summarize(texts[:1], num_beams=0)


def test_of_candidates_the_one_that_most_agree_with_is_taken_unless_support_is_known():
    def found(text, **more): return Support(text, certainty=-1.0, least=0.5, cycle=0.5, **more)
    said = ["Ben buys milk", "Tom is ill", "Tom is ill today"]
    assert _choice([*map(found, said), Support("")]).summary == "Tom is ill"
    assert _choice([found(text, support=s) for text, s in zip(said, (0.9, 0.5, 0.5))]).summary == "Ben buys milk"
    invented = (Claim("name", "tom", False),)
    assert _choice([found(said[0]), *(found(text, claims=invented) for text in said[1:])]).summary == "Ben buys milk"
    assert _choice([Support("", reason="nothing to say"), Support("")]).reason == "nothing to say"


def test_what_would_be_ignored_is_refused(s, run, texts):
    for wrong in (dict(prefix_len=3), dict(seed_everything=1), dict(max_seq_len=64)):
        with pytest.raises(ConfigError): s.summarize(texts, **wrong)
    with pytest.raises(ConfigError, match="latent_dim is 256, not 128"): Summarizer.from_pretrained(run, latent_dim=128)
    assert len(Summarizer.from_pretrained(run, max_seq_len=64).parts(texts[0])[0]) > 1, "settings of use may change when a model is loaded"


def test_a_large_decoder_runs_in_the_precision_that_is_allowed(run, texts):
    with mock.patch.object(loading, "_LARGE", 0), mock.patch.object(loading, "autocast_dtype", lambda *a, **k: torch.bfloat16):
        s = Summarizer.from_pretrained(run)
    assert s.decoder.model.dtype is torch.bfloat16 and next(s.model.parameters()).dtype is torch.float32
    assert all(s.summarize(texts[:3])) and "".join(s.stream(texts[0])) == s.summarize(texts[0])


# --- odd texts --------------------------------------------------------------------------------------------------------

ODD = {"empty": "", "blank": " \t\r\n\u00a0", "emoji": "👩🏽‍🚀🎉🎉 ok?! 🇩🇪", "right to left": "דנה: ניפגש ביום שישי? \nעומר: כן, בשש", "one character": "a" * 5000,
       "one line": "word " * 3000, "NUL": "Anna: hi\0there", "half an emoji": "Anna: \ud83d ok", "only punctuation": "?!...", "line ends": "Anna: hi\r\nBen: yo\r"}


@pytest.mark.parametrize("name", ODD)
def test_odd_texts(s, name):
    text = ODD[name]
    summary = s.summarize(text, max_generation_length=8)
    assert isinstance(summary, str) and summary == "".join(s.stream(text, max_generation_length=8)) == s.summarize([text], max_generation_length=8)[0]
    assert s.encode(text).isfinite().all() and isinstance(s.reconstruct(text, max_generation_length=4), str)
    if not text.strip(): assert summary == "" and s.model.is_stop(s.encode(text))[0]


@pytest.mark.parametrize("text", ["Anna: shall we meet at 5?\nBen: yes, at the station.\n" * 19000, "a" * 1_000_000], ids=["chat", "one character"])
def test_a_megabyte_is_read_to_its_end(s, text):
    read, embed = [], codec.Embedder.__call__
    def watched(embedder, ids, advance=None):
        read.extend(ids)
        return embed(embedder, [i[:10] for i in ids], advance)  # first token, latent tokens and one more: the whole would take a minute
    with mock.patch.object(codec.Embedder, "__call__", watched): summary = s.summarize(text, long="mean", max_generation_length=4)
    parts, = s.parts(text)
    assert isinstance(summary, str) and sum(len("".join(p.split())) for p in parts) == len("".join(text.split())), "nothing is left out"
    assert len(read) == len(parts) and max(map(len, read)) <= s.cfg.max_seq_len
    for p, ids in [*zip(parts[:20], read[:20]), *zip(parts[-20:], read[-20:])]: assert ids == input_ids(s.cfg, s.encoder, [p])[0][0], "each part is read whole"
    assert not input_ids(s.cfg, s.encoder, parts[:20] + parts[-20:])[1], "and none is cut"


def test_rows_that_are_no_text(s, texts, capsys):
    rows = [texts[0], None, "", float("nan"), texts[1], 7]
    out = s.summarize(rows)
    assert out == [s.summarize(texts[0]), "", "", "", s.summarize(texts[1]), ""]
    assert "3 of 6 rows are not text (the first is number 1, a NoneType)" in capsys.readouterr().err
    assert s.encode(rows).shape == (6, 8, 256) and s.summarize([]) == [] and s.encode([]).shape == (0, 8, 256)
    for wrong in (None, 3, b"bytes", {"text": "x"}, [None, 3]):
        with pytest.raises(DataError): s.summarize(wrong)


def test_more_texts_than_are_embedded_at_a_time_one_of_them_bad(s):
    rows = [f"Anna: see you at {i}" for i in range(1_200)]
    rows[743] = None
    most, embed = [], codec.Embedder.__call__
    def watched(embedder, ids, advance=None): most.append(len(ids)); return embed(embedder, ids, advance)
    def first_number(decoder, prefix, cfg): return [f"{p[0, 0]:.6f}" for p in prefix]  # in place of a decoder: a text that depends on the latents
    with mock.patch.object(codec.Embedder, "__call__", watched), mock.patch.object(codec, "generate", first_number):
        out, some = s.summarize(rows), [0, 17, 742, 744, 1_199]
        again = [float(t) for t in s.summarize([rows[i] for i in some])]
    assert len(out) == 1_200 and [i for i, o in enumerate(out) if not o] == [743] and len(set(out)) > 500
    assert max(most[:-1]) <= 512 and sum(most[:-1]) == 1_199, "a few hundred at a time, each once"
    assert again == pytest.approx([float(out[i]) for i in some], abs=1e-4), "in the order they came"


def test_a_long_text_is_told_and_joined(s, texts, capsys):
    long = "\n".join(texts[:8])
    parts, = s.parts(long)
    assert len(parts) > 2 and "longer than 246 tokens (max_seq_len=256): 1 of 1 text, read in" in capsys.readouterr().err
    assert s.summarize([texts[0], long]) == [s.summarize(texts[0]), " ".join(filter(None, s.summarize(parts)))]
    mean = codec.normalize_latents(s.compress_meaning(s.encode(parts)).mean(0, keepdim=True))
    assert s.summarize(long, long="mean") == s.decode(mean)[0]
    with pytest.raises(ConfigError, match="join, mean"): s.summarize(long, long="first")


# --- word by word -----------------------------------------------------------------------------------------------------

def test_a_stream_that_nobody_reads_stops(s, texts):
    steps = []
    count = s.decoder.model.register_forward_hook(lambda *_: steps.append(1))
    never = property(lambda decoder: len(decoder.tokenizer) - 1)  # an end token that does not come
    try:
        with mock.patch.object(type(s.decoder), "eos_id", never):
            stream = s.stream(texts[0], max_generation_length=600)
            next(stream)
            stream.close()
        seen = len(steps)
    finally: count.remove()
    assert seen < 400 and len(steps) == seen, "generation ends with its reader"
    assert not [t for t in threading.enumerate() if t.name.startswith("Thread-") and t.is_alive() and "work" in t.name]


def test_an_error_in_the_stream_is_raised(s, texts):
    with mock.patch.object(s.decoder.model, "generate", side_effect=RuntimeError("out of order")), pytest.raises(RuntimeError, match="out of order"):
        list(s.stream(texts[0]))


# --- latents ----------------------------------------------------------------------------------------------------------

def test_latents_on_disk(s, texts, tmp_path):
    document = s.encode(texts)
    path = s.save_latents(tmp_path / "a.safetensors", document, ids=[f"chat-{i}" for i in range(20)])
    back = s.load_latents(path)
    assert back.ids[19] == "chat-19" and not back.summary and path.stat().st_size < 20 * 2200
    assert torch.nn.functional.cosine_similarity(back.latents.flatten(1), document.flatten(1)).min() > 0.999
    summary = s.load_latents(s.save_latents(tmp_path / "b.safetensors", s.compress_meaning(document).numpy(), summary=True))
    assert summary.summary and summary.ids is None
    assert sum(a == b for a, b in zip(s.decode(summary.latents), s.summarize(texts))) >= 12, "int8 changes a word now and then"
    raw = path.read_bytes()
    for at in (3, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:])
        with pytest.raises(CacheError): s.load_latents(path)


def test_latents_of_another_model_are_refused_by_name(s, run, texts, tmp_path):
    path = s.save_latents(tmp_path / "a.safetensors", s.encode(texts[:2]))
    meaning = s.save_latents(tmp_path / "b.safetensors", s.compress_meaning(s.encode(texts[:2])), summary=True)
    other = Summarizer.from_pretrained(run)
    with torch.no_grad(): next(other.model.middle.parameters()).add_(1)
    assert other.load_latents(path).latents.shape == (2, 8, 256), "a text's own latents do not depend on the middle"
    with pytest.raises(CacheError, match="middle '"): other.load_latents(meaning)
    other.encoder.identity["revision"] = "another"
    with pytest.raises(CacheError, match="encoder.revision .*, not 'another'"): other.load_latents(path)


def test_neighbours(s, texts):
    latents = s.encode(texts)
    assert [found[0][0] for found in s.nearest(texts, latents, k=3)] == list(range(20))
    assert s.nearest(texts[4], texts, k=2) == s.nearest(texts[4], latents, k=2)
    assert len(s.nearest(latents.numpy()[:2], latents, k=99)) == 2 and len(s.nearest(texts[0], latents, k=99)) == 20
    with pytest.raises(ConfigError): s.nearest(texts[0], latents, k=0)


# --- a conversation ---------------------------------------------------------------------------------------------------

def test_a_conversation_with_a_model(s, texts):
    chat, out = Chat(s), []
    for line in [*texts[0].splitlines(), "", *texts[1].splitlines(), "", ":alpha 0", ":alpha 1", ":history"]: out += chat.say(line)
    first, second = s.summarize(texts[:2])
    assert out[:4] == [first, second, first, second] and len(out) == 8
    assert list(chat.say(":rebuild")) == s.reconstruct(texts[1]).splitlines()
    assert list(chat.say(":again")) != [] and list(chat.end()) == [] and chat.done


# --- a hub to write to ------------------------------------------------------------------------------------------------

class _Writable(_Handler):
    "Also takes repositories and commits, as the real hub does; `moved` repositories have a newer commit than the one that is served."
    def do_GET(self):
        if self.command != "POST" and self.command != "PUT" and not self.moved(): return super().do_GET()
        path, body = self.path.split("?")[0], None
        if self.command in ("POST", "PUT"): body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        else: return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if path.startswith("/store/"): return self.store(path, body)
        if token not in self.hub.tokens: return self.refuse("token")
        self.hub.log.append((self.command, path, None, 0, 0))
        if path == "/api/validate-yaml": return self.json(dict(errors=[], warnings=[]))
        if path == "/api/repos/create": return self.create(json.loads(body))
        if path.endswith("/preupload/main"): return self.json(dict(files=[self.mode(f["path"]) for f in json.loads(body)["files"]]))
        if path.endswith("/info/lfs/objects/batch"): return self.batch(json.loads(body))
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path): return self.commit(m[1], body)
        self.refuse("absent")

    do_HEAD = do_POST = do_PUT = do_GET

    def moved(self) -> bool:
        m = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", self.path.split("?")[0])
        if not m or m[1] not in self.hub.moved: return False
        self.json(dict(_id="1", id=m[1], sha="f" * 40, private=False, disabled=False, gated=False, downloads=0, likes=0, tags=[], siblings=[]))
        return True

    def mode(self, path:str) -> dict: return dict(path=path, uploadMode="lfs" if path.endswith(".safetensors") else "regular", shouldIgnore=False)

    def create(self, about:dict):
        name = f"{about.get('organization') or 'writer'}/{about['name']}"
        self.hub.file("models", name).mkdir(parents=True, exist_ok=True)
        self.json(dict(url=f"{self.hub.url}/{name}", id="1", name=name))

    def batch(self, about:dict):
        objects = [dict(oid=o["oid"], size=o["size"], actions=dict(upload=dict(href=f"{self.hub.url}/store/{o['oid']}"))) for o in about["objects"]]
        self.reply(200, json.dumps(dict(transfer="basic", objects=objects)).encode(), Content_Type="application/vnd.git-lfs+json")

    def store(self, path:str, body:bytes):
        self.hub.stored[path.split("/")[-1]] = body
        self.reply(200)

    def commit(self, name:str, body:bytes):
        import base64
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header": continue
            content = self.hub.stored[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
            self.hub.file("models", name, value["path"]).write_bytes(content)
        self.json(dict(commitUrl=f"{self.hub.url}/{name}/commit/{COMMIT}", commitOid=COMMIT, success=True))


class WritableHub(Hub):
    def __init__(self, root):
        super().__init__(root)
        self.stored, self.moved = {}, set()

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Writable,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with WritableHub(tmp_path_factory.mktemp("hub")) as hub:
        hub.tokens.add(TOKEN)
        yield hub


def python(code:str, hub, home, token:str=TOKEN, cwd=None) -> subprocess.CompletedProcess:
    env = os.environ | hub.env(home, token) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1"}
    code = "from latent_summ.use.inference import Summarizer\n" + code
    return forks.run(["-c", code], env, cwd or home)


def test_to_a_hub_and_back(hub, run, s, texts, tmp_path):
    report = dict(source="messenger", split="test", rows={"evaluated": 6}, rouge1=12.34, rouge2=1, rougeL=1, rougeLsum=1, fact_recall=0.5, baselines={})
    (run / "report.json").write_text(json.dumps(report))
    pushed = python(f"print(Summarizer.from_pretrained({str(run)!r}).push_to_hub('writer/tiny'))", hub, tmp_path)
    assert pushed.returncode == 0, pushed.stderr
    folder = hub.file("models", "writer/tiny")
    assert {p.name for p in folder.iterdir()} >= {"model.safetensors", "config.json", "README.md", "report.json"}
    card = (folder / "README.md").read_text()
    wanted = ['Summarizer.from_pretrained("writer/tiny")', "| **this model** | 12.3 |", "- messenger (dialogues", s.encoder.identity["revision"], "finetune middle: 1 epoch "]
    assert [x for x in wanted if x not in card] == []
    assert not any(TOKEN.encode() in p.read_bytes() or str(run.parent).encode() in p.read_bytes() for p in folder.iterdir())
    code = f"import json; s = Summarizer.from_pretrained('writer/tiny'); print(json.dumps([s.summarize({texts[:4]!r}), str(s.file)]))"
    used = python(code, hub, tmp_path, token="")
    assert used.returncode == 0, used.stderr
    summaries, place = json.loads(used.stdout)
    assert summaries == s.summarize(texts[:4]) and COMMIT in place


def test_what_the_hub_refuses(hub, run, tmp_path):
    refused = python(f"Summarizer.from_pretrained({str(run)!r}).push_to_hub('writer/tiny')", hub, tmp_path, token=WRONG)
    assert "CheckpointError: writer/tiny could not be uploaded" in refused.stderr and "hf auth login" in refused.stderr and WRONG not in refused.stderr.splitlines()[-1]
    missing = python("Summarizer.from_pretrained('writer/nothing')", hub, tmp_path)
    assert "There is no trained model in writer/nothing, and as a model of the hub it does not exist" in missing.stderr and "latent_summ demo" in missing.stderr
    hub.log.clear()
    assert "There is no trained model in runs/nothing" in python("Summarizer.from_pretrained('runs/nothing')", hub, tmp_path).stderr
    assert not hub.log, "a run folder that is not there is not looked for on the hub"


def test_backbones_come_in_the_revision_that_was_trained_with(hub, tmp_path):
    make_models(hub.root)
    hub.moved = {"answerdotai/ModernBERT-base"}
    hub.log.clear()
    code = f"""
from latent_summ.use.share import _pinned
from latent_summ.config import Config
from latent_summ.encode.backbones import load_encoder
folder = _pinned("modernbert_model", "answerdotai/ModernBERT-base", dict(revision="{COMMIT}"), "encoder")
print(load_encoder(Config(device="cpu", modernbert_model=folder)).identity["revision"])"""
    done = python(code, hub, tmp_path, token="")
    assert done.returncode == 0 and done.stdout.split()[-1] == COMMIT, done.stdout + done.stderr
    assert not [p for _, p, *_ in hub.log if "f" * 40 in p] and [p for _, p, *_ in hub.log if COMMIT in p]


# --- a folder to hand on ----------------------------------------------------------------------------------------------

def test_a_folder_that_was_saved(s, run, texts, tmp_path):
    s.save_pretrained(tmp_path / "model")
    friend = Summarizer.from_pretrained(tmp_path / "model")
    assert friend.summarize(texts) == s.summarize(texts)
    friend.save_pretrained(tmp_path / "again")  # and on
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads((tmp_path / "model" / "config.json").read_text())
    with pytest.raises(CheckpointError, match="holds a run"): s.save_pretrained(run)
    assert "run_dir" in json.loads((run / "config.json").read_text()), "the run's own settings are still there"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_byte_in_a_saved_folder_is_found(s, tmp_path, name):
    s.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / name
    raw = file.read_bytes()
    for at in (2, len(raw) // 2, len(raw) - 5):
        file.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:])
        with pytest.raises(CheckpointError): share.read_export(tmp_path / "model")
