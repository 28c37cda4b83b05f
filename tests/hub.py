"""A hub on the loopback interface: models and datasets served over HTTP as huggingface.co does, with real files and every way of refusing.

    with Hub(folder) as hub:               # folder/models/OWNER/NAME/..., folder/datasets/OWNER/NAME/...
        hub.gated.add("google/gemma-3-270m-it")
        subprocess.run(..., env=os.environ | hub.env(home))

Weights and parquet files are kept as the real hub keeps large files: named by their sha256 and served from another address after a redirect.
`make_models` and `make_datasets` fill a folder with small parts under the names of the default configuration.
"""
import hashlib
import json
import re
import shutil
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".parquet", ".gguf")
REFUSALS = {"token": (401, "", "Invalid credentials in Authorization header"),
            "absent": (401, "RepoNotFound", "Invalid username or password."),
            "absent, token": (404, "RepoNotFound", "Repository not found"),
            "entry": (404, "EntryNotFound", "Entry not found"),
            "gated": (401, "GatedRepo", "Access to this repository is restricted. You must have access to it and be authenticated to access it. Please log in."),
            "gated, token": (403, "GatedRepo", "Access to this repository is restricted and you are not in the authorized list. Visit its page to ask for access.")}


@cache
def _digests(path:Path, changed:int) -> tuple:
    "(git's blob id, sha256) of a file."
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), hashlib.sha256(data).hexdigest()


class Hub:
    "Serves `root` while the `with` block lasts; what it was asked is in `log`."
    def __init__(self, root):
        self.root = Path(root)
        self.tokens, self.gated, self.members = set(), set(), set()  # tokens it knows; ids that are gated; tokens that accepted every licence
        self.breaks = {}  # id -> range of bytes of its large files that never arrive: the connection breaks before them
        self.flipped = set()  # ids whose large files are sent with one bit flipped
        self.log = []  # (method, path, file or None, first byte, bytes sent)

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def env(self, home, token:str="") -> dict:
        "Environment variables that make a process use this hub, with an empty home of its own."
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def file(self, kind:str, name:str, path:str="") -> Path: return self.root / kind / name / path

    def digests(self, path:Path) -> tuple: return _digests(path, path.stat().st_mtime_ns)

    def entry(self, kind:str, name:str, path:str) -> dict:
        "A file as the API lists it."
        file = self.file(kind, name, path)
        git, sha = self.digests(file)
        size = file.stat().st_size
        return dict(type="file", path=path, size=size, oid=git) | (dict(lfs=dict(oid=sha, size=size, pointerSize=134)) if file.suffix in LARGE else {})

    def listing(self, kind:str, name:str, under:str="", recursive:bool=True) -> list:
        "Files and folders as the API lists them."
        top = self.file(kind, name, under)
        found = sorted(top.rglob("*") if recursive else top.iterdir()) if top.is_dir() else []
        folder = lambda p: dict(type="directory", path=p, oid="0" * 40, size=0)
        paths = [(p, str(p.relative_to(self.file(kind, name)))) for p in found]
        return [self.entry(kind, name, path) if p.is_file() else folder(path) for p, path in paths]

    def sent(self, name:str) -> list:
        "(file, first byte, bytes) of everything sent from the files of a repository."
        return [(f, start, n) for _, _, f, start, n in self.log if f and n and self.owner(f) == name]

    def owner(self, file:Path) -> str:
        "The id of the repository that a file belongs to."
        return "/".join(file.relative_to(self.root).parts[1:3])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_): pass

    def reply(self, status:int, body:bytes=b"", **headers):
        self.send_response(status)
        for k, v in headers.items(): self.send_header(k.replace("_", "-"), v)
        if "Content_Length" not in headers: self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD": return
        try: self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError): self.close_connection = True  # a reader may stop where it likes

    def json(self, value): self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, why:str):
        status, code, text = REFUSALS[why]
        self.reply(status, json.dumps(dict(error=text)).encode(), Content_Type="application/json", X_Error_Code=code, X_Error_Message=text)

    def refusal(self, kind:str, name:str, content:bool):
        "Why this request is turned down, or None: the token first, then the repository, then its gate (for content only)."
        hub, token = self.hub, (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in hub.tokens: return "token"
        if not hub.file(kind, name).is_dir(): return "absent, token" if token else "absent"
        if content and name in hub.gated and token not in hub.members: return "gated, token" if token else "gated"
        return None

    def do_GET(self):
        url, length = urlparse(self.path), int(self.headers.get("Content-Length") or 0)
        path, body = unquote(url.path), self.rfile.read(length)
        self.hub.log.append((self.command, self.path, None, 0, 0))
        if m := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path): self.api(m, parse_qs(url.query), body)
        elif m := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path): self.resolve("datasets" if m[1] else "models", m[2], m[3])
        elif m := re.fullmatch(r"/large/(\w+)/(.+)", path): self.content(self.hub.root / m[2], f'"{m[1]}"')
        else: self.refuse("absent")

    do_HEAD = do_POST = do_GET

    def api(self, m, query:dict, body:bytes):
        kind, name, what, _, under = m.groups()
        if why := self.refusal(kind, name, content=False): return self.refuse(why)
        if what == "tree": return self.json(self.hub.listing(kind, name, under or "", query.get("recursive", ["false"])[0].lower() in ("true", "1")))
        if what == "paths-info":
            wanted = parse_qs(body.decode()).get("paths", []) if b"=" in body[:10] else json.loads(body)["paths"]
            files = [p for p in wanted if self.hub.file(kind, name, p).is_file()]
            folders = [p for p in wanted if self.hub.file(kind, name, p).is_dir()]
            return self.json([self.hub.entry(kind, name, p) for p in files] + [dict(type="directory", path=p, oid="0" * 40, size=0) for p in folders])
        siblings = [dict(rfilename=f["path"]) for f in self.hub.listing(kind, name) if f["type"] == "file"]
        self.json(dict(_id="1", id=name, sha=COMMIT, private=False, disabled=False, gated="manual" if name in self.hub.gated else False, downloads=0, likes=0,
                       tags=[], siblings=siblings))

    def resolve(self, kind:str, name:str, path:str):
        if why := self.refusal(kind, name, content=True): return self.refuse(why)
        file = self.hub.file(kind, name, path)
        if not file.is_file(): return self.refuse("entry")
        git, sha = self.hub.digests(file)
        if file.suffix not in LARGE: return self.content(file, f'"{git}"')
        self.reply(302, Location=f"{self.hub.url}/large/{sha}/{file.relative_to(self.hub.root)}", X_Linked_Etag=f'"{sha}"',
                   X_Linked_Size=str(file.stat().st_size), X_Repo_Commit=COMMIT)

    def content(self, file:Path, etag:str):
        "A file or a range of it, whole, cut or with a bit flipped."
        data, start, status, extra = file.read_bytes(), 0, 200, {}
        name, large = self.hub.owner(file), file.suffix in LARGE
        if large and name in self.hub.flipped: data = data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
        if m := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            size, start, last = len(data), int(m[1] or 0), int(m[2] or len(data) - 1)
            data, status = data[start:last + 1], 206
            extra = dict(Content_Range=f"bytes {start}-{start + len(data) - 1}/{size}")
        lost = self.hub.breaks.get(name, range(0)) if large else range(0)
        send = data[:max(0, lost.start - start)] if start < lost.stop and start + len(data) > lost.start else data
        if self.command != "HEAD": self.hub.log.append((self.command, self.path, file, start, len(send)))
        self.reply(status, send, ETag=etag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes", Content_Type="application/octet-stream",
                   Content_Length=str(len(data)), **extra)
        if len(send) < len(data): self.close_connection = True


# --- what it serves ---------------------------------------------------------------------------------------------------

def make_models(root):
    """A ModernBERT 768 wide and a Gemma-3 640 wide, two layers each, and the pair of the preset laptop, a BERT 384 wide and a Llama 576 wide.

    They are drawn at random; their tokenizers are those of the small pair in the package."""
    import torch
    from transformers import BertConfig, BertModel, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, ModernBertConfig, ModernBertForMaskedLM

    import latent_summ
    mini = Path(latent_summ.__file__).parent / "mini"
    torch.manual_seed(0)
    words = lambda part: json.loads((mini / part / "config.json").read_text())
    special = lambda part: {k: v for k, v in words(part).items() if k.endswith("_token_id") or k == "vocab_size"}
    encoder = ModernBertForMaskedLM(ModernBertConfig(hidden_size=768, num_hidden_layers=2, num_attention_heads=12, intermediate_size=256,
                                                     max_position_embeddings=1024, **special("encoder")))
    decoder = Gemma3ForCausalLM(Gemma3TextConfig(hidden_size=640, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=64,
                                                 intermediate_size=256, max_position_embeddings=1024, **special("decoder")))
    bert = BertModel(BertConfig(hidden_size=384, num_hidden_layers=4, num_attention_heads=12, intermediate_size=128, max_position_embeddings=512, **special("encoder")))
    llama = LlamaForCausalLM(LlamaConfig(hidden_size=576, num_hidden_layers=2, num_attention_heads=9, num_key_value_heads=3, intermediate_size=128,
                                         max_position_embeddings=1024, **special("decoder")))
    for name, model, part in (("answerdotai/ModernBERT-base", encoder, "encoder"), ("google/gemma-3-270m-it", decoder, "decoder"),
                              ("sentence-transformers/all-MiniLM-L6-v2", bert, "encoder"), ("HuggingFaceTB/SmolLM2-135M-Instruct", llama, "decoder")):
        folder = Path(root) / "models" / name
        model.to(torch.bfloat16).save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"): shutil.copy(mini / part / file, folder)
        (folder / "README.md").write_text("# not needed, so not to be downloaded\n" * 1000)


def put_parquet(root, name:str, split:str, columns:dict, rows_per_group:int=1000) -> Path:
    "One split of a dataset as a parquet file."
    import pyarrow as pa
    import pyarrow.parquet as pq
    path = Path(root) / "datasets" / name / "data" / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def make_datasets(root, rows:int=40):
    "The four default sources with their real columns; a dialogue is None, others hold `\\r\\n`, and one validation dialogue is also in train."
    import numpy as np
    names = ["Ann", "Bob", "Cem", "Dee", "Eva"]
    chats = [f"{names[i % 5]}: shall we meet at {i}?\r\n{names[(i + 1) % 5]}: yes, see you at {i}" for i in range(rows)]
    gists = [f"{names[i % 5]} and {names[(i + 1) % 5]} meet at {i}." for i in range(rows)]
    for split, some in (("train", slice(0, rows - 12)), ("validation", slice(rows - 13, rows - 6)), ("test", slice(rows - 6, rows))):
        empty = [None if split == "train" and i == 3 else c for i, c in enumerate(chats[some])]
        put_parquet(root, "knkarthick/samsum", split, dict(id=[f"{split}-{i}" for i in range(len(empty))], dialogue=empty, summary=gists[some]))
    put_parquet(root, "Hieuman/wikitext-103-filtered", "train", dict(query=[f"The river {i} flows past {i + 1} mills." for i in range(rows)]))
    n = 3000  # vectors of 768 numbers: nine of the file's ten megabytes
    put_parquet(root, "macrocosm/arxiv_abstracts", "train", dict(
        abstract=[f"We prove theorem {i} for graphs of order {i}." for i in range(n)], doi=[f"10.1/{i}" for i in range(n)],
        embeddings=list(np.random.default_rng(0).random((n, 768), np.float32))), rows_per_group=100)
    put_parquet(root, "shuyuej/English-Pretraining-Dataset", "train", dict(text=[f"On day {i} it rained for {i} hours." for i in range(rows)]))
