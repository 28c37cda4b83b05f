"""Real work from a cold process, text in to text out: chats to summaries, and texts to embeddings, compared with the standard implementation (same weights).

    python benchmarks/workload.py             to benchmarks/results/workload.json: 400 chats with the small pair, 48 with full sizes
    python benchmarks/workload.py --full      400 chats with full sizes too (the standard implementation takes about five minutes in bf16)

The chats are SAMSum's, from the folder in LATENT_SUMM_DATA (samsum.train.jsonl.xz); without it, those of the built-in corpus, whose summaries are nearly
all of one length. Both run in processes of their own, alternating, with the same weights in the same precision, and read and write the same texts; timed
is the whole process, from its start to the last text (`work`: without start and loading).

- ours: `Summarizer.from_pretrained`, then `summarize(texts)`
- plain: transformers' models and `generate`, in fixed batches of 32 in the order of the texts
- The weights are random, so the decoder is told when to end: each summary is as long as the right one (one token for four characters), by a hook
  that leaves all arithmetic as it is. Both write the same number of words, but for texts that are longer than the
  encoder reads: the plain way cuts them off, ours reads them in parts and writes a summary of each.
- embed: texts to a finished cache on disk and its vectors back in memory, beside `sentence-transformers` (fp32, as it comes; and in bf16) and
  `datasets.map` with transformers; each to a file with the vectors
"""
import json
import lzma
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _common import MadeRows, child, gemma, modernbert, options, parse, peak_gb, run_parts, spread, sync
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from latent_summ.encode.backbones import MINI, load_decoder, load_encoder
from latent_summ.train.checkpoint import config_of
from latent_summ.config import Config
from latent_summ.use.inference import Summarizer
from latent_summ.model.model import LatentSummarizer
from latent_summ.data.sources import load_pairs

BASE, BATCH = 100, 32 # the first of the words that count down to the end; rows in a batch
DTYPES = dict(bf16=torch.bfloat16, fp32=torch.float32)


class Ends:
    "Makes a decoder end where it is told to: word BASE + k is followed by BASE + k - 1, and BASE by the end token."
    def __init__(self, model, decoder, eos:int, folder:Path):
        self.rows, self.lengths, self.eos, self.written = np.load(folder / "latents.npy"), np.load(folder / "lengths.npy"), eos, 0
        self.of_model, model.prefix = model.prefix, self.prefix
        decoder.register_forward_hook(self.count_down, with_kwargs=True)

    def prefix(self, latents):
        "Find which texts these are by their latents; the first word says how many follow."
        far = torch.cdist(latents.flatten(1).float().cpu(), torch.from_numpy(self.rows))
        self.left = torch.from_numpy(self.lengths)[far.argmin(1)].to(latents.device)
        self.written += int(self.left.sum())
        return self.of_model(latents)

    def count_down(self, module, args, given, out):
        ids = given.get("input_ids")
        left = ids[:, -1] - BASE if given.get("inputs_embeds") is None else self.left
        words = torch.where(left > 0, BASE + left - 1, self.eos)
        out.logits[torch.arange(len(words)), -1, words] = 1e4
        return out


# --- what both ways read ----------------------------------------------------------------------------------------------

def backbone_folders(folder:Path, size:str, toy:bool) -> dict: # config fields
    "Where encoder and decoder are: the small pair of the package, or random ones of full size, written to `folder`."
    if size == "mini": return dict(modernbert_model=str(MINI / "encoder"), gpt2_model=str(MINI / "decoder"), modernbert_hidden_dim=160, gpt2_hidden_dim=160)
    for name, model in (("encoder", modernbert(toy)), ("decoder", gemma(toy).model)):
        model.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(MINI / name).save_pretrained(folder / name)
    return dict(modernbert_model=str(folder / "encoder"), gpt2_model=str(folder / "decoder"))


def pairs_of(rows:int) -> tuple: # (where from, dialogues with their summaries)
    "Chats of people where they are at hand, else made-up ones, whose summaries are nearly all of one length."
    data = os.environ.get("LATENT_SUMM_DATA")
    if not data: return "built-in messenger corpus", list(load_pairs(Config.preset("mini").override(messenger_rows=rows)))[:rows]
    lines = map(json.loads, lzma.open(Path(data) / "samsum.train.jsonl.xz", "rt", encoding="utf-8"))
    return "samsum.train.jsonl.xz", [r for r in lines if r["dialogue"]][:rows]


def prepare(folder:Path, opts, size:str, rows:int) -> tuple: # (where the texts are from, how many)
    "A saved model, the texts, their latents and the lengths of their summaries."
    cfg = Config(device=opts.device, encoder_pooling="mean", do_sample=False, max_generation_length=64, batch_size=BATCH, use_stop_latent=False, use_fp16=False,
                 **backbone_folders(folder, size, opts.toy))
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    torch.manual_seed(0)
    s = Summarizer(cfg, LatentSummarizer(cfg, decoder.embedding_rms), encoder, decoder)
    s.save_pretrained(folder / "model")
    source, pairs = pairs_of(rows)
    texts = [p["dialogue"] for p in pairs]
    np.save(folder / "latents.npy", s.compress_meaning(s.encode(texts)).flatten(1).numpy())
    np.save(folder / "lengths.npy", np.array([min(len(p["summary"]) // 4, 63) for p in pairs]))
    (folder / "texts.json").write_text(json.dumps(texts))
    return source, len(texts)


# --- chats to summaries -----------------------------------------------------------------------------------------------

def ours(folder:Path, texts:list, dtype:str, device:str) -> tuple: # summaries, words written, seconds of work
    s = Summarizer.from_pretrained(folder / "model", device=device, use_bf16=dtype == "bf16")
    ends = Ends(s.model, s.decoder.model, s.decoder.eos_id, folder)
    start = time.perf_counter()
    out = s.summarize(texts)
    return out, ends.written, time.perf_counter() - start


@torch.inference_mode()
def plain(folder:Path, texts:list, dtype:str, device:str) -> tuple:
    from latent_summ.use.share import read_model
    tensors, meta = read_model(folder / "model")
    cfg = config_of(meta)
    def load(auto, where): return auto.from_pretrained(where, dtype=DTYPES[dtype]).eval().to(device), AutoTokenizer.from_pretrained(where)
    (encoder, words), (decoder, written) = load(AutoModel, cfg.modernbert_model), load(AutoModelForCausalLM, cfg.gpt2_model)
    model = LatentSummarizer(cfg).eval().to(device)
    model.load_state_dict(tensors["model"])
    ends, out, start = Ends(model, decoder, written.eos_token_id, folder), [], time.perf_counter()
    def fixed(ids, n): return decoder.get_input_embeddings()(torch.tensor(ids, device=device)).expand(n, -1, -1)
    bos, newline = [written.bos_token_id], written("\n", add_special_tokens=False)["input_ids"]
    for i in range(0, len(texts), BATCH):
        x = words(texts[i:i + BATCH], padding=True, truncation=True, max_length=cfg.max_seq_len, return_tensors="pt").to(device)
        states, mask = encoder(input_ids=x["input_ids"], attention_mask=x["attention_mask"]).last_hidden_state.float(), x["attention_mask"][..., None].float()
        latents = model.summary_latents(model.document_latents((states * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)))
        prompt = torch.cat([fixed(bos, len(latents)), model.prefix(latents).to(DTYPES[dtype]), fixed(newline, len(latents))], 1)
        ids = decoder.generate(inputs_embeds=prompt, attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long, device=device), max_new_tokens=cfg.max_generation_length,
                               do_sample=False, pad_token_id=0, eos_token_id=written.eos_token_id)
        out += written.batch_decode(ids, skip_special_tokens=True)
    return [t.strip() for t in out], ends.written, time.perf_counter() - start


# --- texts to embeddings ----------------------------------------------------------------------------------------------

def embed_ours(folder:Path, texts:list, dtype:str, device:str) -> tuple: # vectors, number of texts, seconds of work
    from latent_summ.encode.embed import build_cache
    from latent_summ.use.share import read_model
    cfg = config_of(read_model(folder / "model")[1]).override(device=device, preprocess_cache_dir=str(folder / "cache"), use_bf16=dtype == "bf16")
    cfg.skip_preprocessing_if_cached = False
    encoder, decoder = load_encoder(cfg), load_decoder(Config.preset("mini").override(device="cpu"))
    start = time.perf_counter()
    vectors = build_cache(cfg, encoder, decoder, "texts", "given", rows=MadeRows(len(texts), texts.__getitem__)).embeddings()[:, 0]
    return vectors, len(vectors), time.perf_counter() - start


def embed_sentence_transformers(folder:Path, texts:list, dtype:str, device:str) -> tuple:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    where = config_of(json.loads((folder / "model/config.json").read_text())).modernbert_model
    module = Transformer(where, max_seq_length=512)
    model = SentenceTransformer(modules=[module, Pooling(module.auto_model.config.hidden_size, "mean")], device=device).to(DTYPES[dtype])
    start = time.perf_counter()
    vectors = model.encode(texts, show_progress_bar=False, convert_to_tensor=True).float().cpu().numpy()
    return vectors, len(vectors), time.perf_counter() - start


@torch.inference_mode()
def embed_datasets(folder:Path, texts:list, dtype:str, device:str) -> tuple:
    import datasets
    datasets.disable_progress_bars()
    where = config_of(json.loads((folder / "model/config.json").read_text())).modernbert_model
    encoder, words = AutoModel.from_pretrained(where, dtype=DTYPES[dtype]).eval().to(device), AutoTokenizer.from_pretrained(where)
    def embed(batch):
        x = words(batch["text"], padding=True, truncation=True, max_length=512, return_tensors="pt").to(device)
        states, mask = encoder(input_ids=x["input_ids"], attention_mask=x["attention_mask"]).last_hidden_state.float(), x["attention_mask"][..., None].float()
        return dict(vector=((states * mask).sum(1) / mask.sum(1)).cpu().numpy())
    start = time.perf_counter()
    made = datasets.Dataset.from_dict(dict(text=texts)).map(embed, batched=True, batch_size=BATCH)
    made.save_to_disk(str(folder / "datasets"))
    vectors = made.with_format("numpy")["vector"][:]
    return vectors, len(vectors), time.perf_counter() - start


WAYS = dict(ours=ours, plain=plain, embed_ours=embed_ours, embed_sentence_transformers=embed_sentence_transformers, embed_datasets=embed_datasets)


# --- turns ------------------------------------------------------------------------------------------------------------

def one_way(opts):
    "One way in this process; its texts or vectors go to a file."
    way, folder, dtype = opts.one[0], Path(opts.one[1]), opts.one[2]
    texts = json.loads((folder / "texts.json").read_text())
    out, words, work = WAYS[way](folder, texts, dtype, opts.device)
    sync()
    if isinstance(out, list): (folder / f"{way}.json").write_text(json.dumps(out))
    else: np.save(folder / f"{way}-{dtype}.npy", out)
    print(json.dumps(dict(words=words, work=work, peak_gb=peak_gb(opts.device))))


def in_turns(opts, folder:Path, ways:list, repeats:int) -> dict: # (way, dtype) -> list of figures
    "Each way in a process of its own, in turns; the files are in the page cache."
    runs = {w: [] for w in ways}
    for n in range(repeats):
        for way, dtype in ways if n % 2 else reversed(ways):
            start, cpu = time.perf_counter(), sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
            out = child(__file__, "--one", way, folder, dtype, "--device", opts.device, "--threads", opts.threads)
            runs[way, dtype].append(out | dict(wall=time.perf_counter() - start, cpu=sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - cpu))
            print(way, dtype, {k: round(v, 2) for k, v in runs[way, dtype][-1].items()}, file=sys.stderr, flush=True)
    return runs


def figures(runs:dict, n:int, mine:tuple, names:dict) -> dict:
    "Rates and ratios by the whole process (`times`), in processor time (`cpu`), and without start and loading (`work`)."
    out = {}
    for way, name in names.items():
        out[f"{name}_seconds"] = spread([r["wall"] for r in runs[way]])
        out[f"{name}_rows_per_s"] = spread([n / r["work"] for r in runs[way]])
        out[f"{name}_peak_gb"] = spread([r["peak_gb"] for r in runs[way]])
        if way == mine: continue
        for key, figure in (("times", "wall"), ("times_cpu", "cpu"), ("times_work", "work")):
            out[f"{key}_{name}"] = spread([a[figure] / b[figure] for a, b in zip(runs[way], runs[mine])])
    return out


def bench_chats(opts, size:str, dtype:str, rows:int, repeats:int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source, rows = prepare(folder, opts, size, rows)
        runs = in_turns(opts, folder, [("ours", dtype), ("plain", dtype)], repeats)
        a, b = (json.loads((folder / f"{way}.json").read_text()) for way in ("ours", "plain"))
        lengths = np.load(folder / "lengths.npy")
    words, same = {way: runs[way, dtype][0]["words"] for way in ("ours", "plain")}, sum(x == y for x, y in zip(a, b)) / len(a)
    return dict(chats=rows, source=source, sizes=size, dtype=dtype, batch_size=BATCH, words=words, words_per_summary=spread(lengths), same_texts=round(same, 4),
                peer="transformers generate, fixed batches in input order", **figures(runs, rows, ("ours", dtype), {("ours", dtype): "ours", ("plain", dtype): "plain"}))


def bench_embed(opts, size:str, rows:int, repeats:int) -> dict:
    ways = {("embed_ours", "bf16"): "ours", ("embed_sentence_transformers", "fp32"): "sentence_transformers", ("embed_sentence_transformers", "bf16"): "sentence_transformers_bf16",
            ("embed_datasets", "bf16"): "datasets_map_bf16"}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source, rows = prepare(folder, opts, size, rows)
        runs = in_turns(opts, folder, list(ways), repeats)
        vectors = {name: np.load(folder / f"{way}-{dtype}.npy").astype(np.float32) for (way, dtype), name in ways.items()}
    unit = {k: v / np.linalg.norm(v, axis=-1, keepdims=True) for k, v in vectors.items()}
    cosine = {k: round(float((v * unit["sentence_transformers"]).sum(-1).min()), 5) for k, v in unit.items()}
    return dict(texts=rows, source=source, sizes=size, min_cosine_to_fp32=cosine, peer="sentence-transformers encode, and datasets.map",
                **figures(runs, rows, ("embed_ours", "bf16"), ways))


def few(opts, quick:int, full:int) -> int: return opts.rows or (32 if opts.toy else full if opts.full else quick)


PARTS = dict(
    chats_mini=lambda o: bench_chats(o, "mini", "fp32", few(o, 400, 400), o.repeats or (3 if o.full else 2)),
    chats_bf16=lambda o: bench_chats(o, "full", "bf16", few(o, 48, 400), o.repeats or 1),
    chats_fp32=lambda o: bench_chats(o, "full", "fp32", few(o, 48, 400), o.repeats or 1),
    embed_mini=lambda o: bench_embed(o, "mini", few(o, 5000, 5000), o.repeats or (3 if o.full else 1)),
    embed_full=lambda o: bench_embed(o, "full", few(o, 48, 640), o.repeats or (2 if o.full else 1)))


def main():
    p = options(__doc__, PARTS, quick=("chats_mini", "chats_bf16", "chats_fp32", "embed_mini", "embed_full"))
    p.add_argument("--rows", type=int, help="chats or texts")
    p.add_argument("--repeats", type=int, help="rounds")
    p.add_argument("--one", nargs=3, metavar=("WAY", "FOLDER", "DTYPE"), help="one way alone: what the other processes run")
    opts = parse(p)
    if opts.one: one_way(opts)
    else: run_parts(__file__, opts, PARTS)


if __name__ == "__main__": main()
