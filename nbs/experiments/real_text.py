"""Real text: a small encoder and decoder from nothing on real English, the four stages on real dialogues, and what comes out. Writes nbs/experiments/real_text.json.

    export LATENT_SUMM_DATA=folder                                # samsum, dialogsum, wikipedia, arxiv, prose: .jsonl, packed or not
    python nbs/experiments/real_text.py                           # one to two hours on one core
    python nbs/experiments/real_text.py --phases stages evaluate  # only these, with the pair that lies in --out
    python nbs/experiments/real_text.py --device cuda --width 416 --layers 12 --batch-size 128 --minutes 60   # about 50 M parameters in all; untried

Phases, each of which can be run again by itself:

    decoder    its tokenizer; then it goes on with texts, copies texts from blurred embeddings, and writes the summary after a dialogue
    reading    its second lesson: the summary's words count ten times as much as the dialogue's
    encoder    its tokenizer (its words start as the decoder knows them); masked words; then eight latent tokens learn to hold a text
    summaries  its second lesson: through the frozen decoder, the latent tokens must lead to the text itself, and from a dialogue to its summary
    stages     the package's four stages with the pair, preset mini
    evaluate   the validation rows of each dataset: the model; the same decoder reading the dialogue; copied lines; the loss ladder

The lessons are those of `latent_summ.mini_lessons`: only the corpus they draw from is another one. Lessons and stages see training rows alone: even what the
stages choose their best weights by are 400 training rows, held out. Each lesson writes its model ten times on its way, so that a later phase can go on from
one that was stopped; the stages take up their checkpoints. Weights and texts stay in --out (build/real): the datasets' licences do not let them into a repository.
"""
import argparse
import contextlib
import functools
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import torch
from transformers import PreTrainedTokenizerFast

from latent_summ import mini_lessons as mini
from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.config import STAGES, Config
from latent_summ.make_mini import add_lesson, save_backbone
from latent_summ.use.evaluate import evaluate, evaluate_predictions, rounded, write_predictions
from latent_summ.use.ladder import ladder_report, loss_ladder, read_text, reconstruction
from latent_summ.use.inference import Summarizer
from latent_summ.runtime import autocast, seed_everything, write_json
from latent_summ.data.sources import load_pairs, load_texts
from latent_summ.train.run import environment
from latent_summ.train.stages import run_pipeline

RESULTS = Path(__file__).resolve().parent / "real_text.json"
PHASES = ("decoder", "reading", "encoder", "summaries", "stages", "evaluate")
SHARES = dict(decoder=0.34, reading=0.18, masked=0.06, holding=0.14, summaries=0.28) # of the minutes
HELD_OUT = 400 # training rows by which the stages choose their best weights


class Corpus:
    "Real rows with the faces of the built-in corpus: `chats` and `texts`, as the lessons call them. Row number i is always the same row."
    def __init__(self, data:str, datasets:list, general:list, chars:int, rows:int=None):
        def clipped(r): return dict(id=r["id"], dialogue=_clip(r["dialogue"], chars), summary=r["summary"])
        pairs = [clipped(r) for name in datasets for r in load_pairs(Config(dataset_name=f"{data}/{name}"), "train", rows)]
        random.Random(0).shuffle(pairs)
        held = min(HELD_OUT, len(pairs) // 10)
        self.held, self.pairs = pairs[:held], pairs[held:]
        self.general = [r["text"] for name in general for r in load_texts(Config(), f"{data}/{name}", "train", rows or 10000)]

    def chats(self, n:int, split:str="train", seed:int=0, start:int=0) -> list:
        "Pairs; none comes again before all have come."
        size = len(self.pairs)
        return [self.pairs[_order(size, seed, i // size)[i % size]] for i in range(start, start + n)]

    def texts(self, n:int, split:str="train", seed:int=0, start:int=0, mix:dict=None) -> list:
        "Summaries, windows of one to three lines, whole dialogues, and general English (up to three sentences), by the weights of `mix`."
        rng, mix = random.Random(f"{seed}-{start}"), mix or dict(summary=.4, window=.3, chat=.3)
        make = dict(summary=lambda r: r["summary"], chat=lambda r: r["dialogue"], window=lambda r: _window(rng, r["dialogue"].split("\n")), general=lambda r: self._general(rng))
        return [dict(id=f"{start + i}", text=make[kind](rng.choice(self.pairs))) for i, kind in enumerate(rng.choices(list(mix), list(mix.values()), k=n))]

    def _general(self, rng) -> str:
        text = re.sub(r"\s+", " ", rng.choice(self.general)) if self.general else rng.choice(self.pairs)["summary"]
        return _window(rng, re.split(r"(?<=[.!?]) ", text), " ")[:300]


@functools.lru_cache(4)
def _order(size:int, seed:int, epoch:int) -> list: return random.Random(f"{seed}-{epoch}").sample(range(size), size)

def _clip(dialogue:str, chars:int) -> str:
    "The first lines, whole ones, up to so many characters (a longer first line is cut)."
    return dialogue if len(dialogue) <= chars else dialogue[:chars + 1].rsplit("\n", 1)[0][:chars]

def _window(rng, lines:list, joint:str="\n") -> str:
    at = rng.randrange(len(lines))
    return joint.join(lines[at:at + rng.randint(1, 3)])


@contextlib.contextmanager
def lessons_on(device:str):
    "What the lessons draw and pad, on `device`."
    on = mock.patch.object(torch, "Generator", functools.partial(torch.Generator, device))
    with torch.device(device), on if device != "cpu" else contextlib.nullcontext(): yield

def steps_in(minutes:float, model, step, source, tries:int=24) -> int:
    "How many steps fit into some minutes: two dozen are timed, after a few that are not."
    model.train()
    for i in range(6 + tries):
        if i == 6: start = time.monotonic()
        with autocast(Config(device="cpu"), torch.device("cpu")): loss, _ = step(next(source))
        loss.backward()
        model.zero_grad()
    return max(int(minutes * 60 * tries / (1.1 * (time.monotonic() - start))), 100)

def lesson(opts, name:str, model, backbone, tok, folder:Path, step, source, lr:float, muon_lr:float, first:bool=False):
    "Teach `model` for its share of the minutes; write the `backbone` in it, its tokenizer and its log to `folder`."
    seed_everything(opts.seed)
    start, about = time.monotonic(), {} if first else json.loads((folder/"training.json").read_text())
    log, steps = about.pop("log", []), opts.steps or steps_in(opts.minutes * SHARES[name], model, step, source)
    def save():
        facts = dict(name=name, steps=steps, seconds=round(time.monotonic() - start), lr=lr, muon_lr=muon_lr, batch_size=opts.batch_size, seed=opts.seed)
        save_backbone(backbone, tok, folder, log, **add_lesson({k: v for k, v in about.items() if k != "parameters"}, **facts))
    mini.fit(model, step, source, steps, lr, muon_lr, log, name, save)
    save()

def pair_config(opts) -> Config:
    "Preset mini with the pair in `--out`, real rows, and the texts of stage 2 made of them."
    own = dict(modernbert_model=str(opts.out/"encoder"), gpt2_model=str(opts.out/"decoder"), modernbert_hidden_dim=opts.width, gpt2_hidden_dim=opts.width, device=opts.device)
    rows = dict(dataset_name=str(opts.out/"data"/"pairs"), wikitext_dataset=str(opts.out/"data"/"texts"), pretrain_adapter_max_samples=opts.text_rows,
                finetune_adapter_max_samples=opts.pair_rows, max_eval_samples=HELD_OUT)
    epochs = {f"{stage}_epochs": opts.epochs for stage in STAGES[1:]} if opts.epochs else {}
    places = dict(run_dir=str(opts.out/"run"), preprocess_cache_dir=str(opts.out/"cache"))
    return Config.preset("mini").override(**own, **rows, **epochs, **places, max_seq_len=opts.max_seq_len, seed=opts.seed)


def teach_decoder(opts, corpus:Corpus):
    "Its tokenizer and its first lesson."
    seed_everything(opts.seed)
    tok = mini.decoder_tokenizer((r["text"] for r in corpus.texts(40000, seed=77, mix=dict(summary=.3, chat=.4, general=.3))), opts.vocab)
    model = mini.mini_decoder(len(tok), opts.width, opts.layers).to(opts.device)
    model.config._attn_implementation = "eager"
    source = mini.decoder_exercises(tok, opts.seed + 1000, opts.batch_size, shares=(.15, .25, .6), corpus=corpus)
    lesson(opts, "decoder", model, model, tok, opts.out/"decoder", mini.decoder_step(model, tok, opts.seed), source, 3e-3, 6e-3, first=True)

def teach_reading(opts, corpus:Corpus):
    "The decoder's second lesson."
    tok, model = PreTrainedTokenizerFast.from_pretrained(opts.out/"decoder"), load_decoder(pair_config(opts), torch.device(opts.device)).model.requires_grad_(True)
    model.config._attn_implementation = "eager"
    source = mini.reading_exercises(tok, opts.seed + 2000, opts.batch_size, corpus)
    lesson(opts, "reading", model, model, tok, opts.out/"decoder", mini.reading_step(model, tok, opts.seed), source, 1.5e-3, 3e-3)

def teach_encoder(opts, corpus:Corpus):
    "The encoder's tokenizer, masked words, and holding a text."
    seed_everything(opts.seed)
    tok = mini.encoder_tokenizer((r["text"] for r in corpus.texts(40000, seed=78, mix=dict(summary=.3, chat=.4, general=.3))), opts.vocab)
    model, decoder, folder = mini.mini_encoder(len(tok), opts.width, opts.layers).to(opts.device), load_decoder(pair_config(opts), torch.device(opts.device)), opts.out/"encoder"
    _same_words(model.embeddings.tok_embeddings.weight, tok, decoder)
    words, rng = mini.MaskedWords(model, tok).to(opts.device), torch.Generator().manual_seed(opts.seed)
    plain = lambda k: tok([r["text"] for r in corpus.texts(4096, seed=3000, start=k*4096, mix=dict(chat=.6, summary=.2, general=.2))])["input_ids"]
    lesson(opts, "masked", words, model, tok, folder, lambda rows: words(rows, rng), mini.batches(plain, len, opts.batch_size, random.Random(opts.seed)), 3e-3, 4e-3, first=True)
    readout = mini.Readout(model, len(decoder.tokenizer), slots=96).to(opts.device)
    with torch.no_grad(): readout.word_table.copy_(decoder.model.get_input_embeddings().weight)
    source = mini.holding_exercises(tok, decoder.tokenizer, opts.seed + 4000, readout.slots, opts.batch_size, shares=(.5, .3, .2, 0), corpus=corpus)
    lesson(opts, "holding", readout, model, tok, folder, mini.holding_step(readout), source, 3e-3, 3e-3)

@torch.no_grad()
def _same_words(table, tok, decoder):
    "Rows of the encoder's table for words that the decoder has too: the decoder's."
    theirs, own = decoder.tokenizer.get_vocab(), tok.get_vocab()
    both = [w for w in own if w in theirs]
    table[[own[w] for w in both]] = decoder.model.get_input_embeddings().weight[[theirs[w] for w in both]]

def teach_summaries(opts, corpus:Corpus):
    "The encoder's second lesson."
    cfg, device = pair_config(opts), torch.device(opts.device)
    tok, model, decoder = PreTrainedTokenizerFast.from_pretrained(opts.out/"encoder"), load_encoder(cfg, device).model.requires_grad_(True), load_decoder(cfg, device)
    taught = mini.ThroughDecoder(model, decoder).to(device)
    source = mini.holding_exercises(tok, decoder.tokenizer, opts.seed + 5000, 96, opts.batch_size, shares=(.2, .1, 0, .7), corpus=corpus)
    lesson(opts, "summaries", taught, model, tok, opts.out/"encoder", taught.step, source, 3e-3, 3e-3)


def run_stages(opts, corpus:Corpus):
    "Write the rows, run the four stages; one that was stopped goes on."
    texts = [r["summary"] for r in corpus.pairs] + [r["text"] for r in corpus.texts(len(corpus.pairs) // 2, seed=6000, mix=dict(window=.6, general=.4))]
    random.Random(1).shuffle(texts)
    held = [dict(text=r["summary"]) for r in corpus.held]
    files = {"pairs.train": corpus.pairs, "pairs.validation": corpus.held, "texts.train": [dict(text=t) for t in texts], "texts.validation": held}
    (opts.out/"data").mkdir(exist_ok=True)
    for name, rows in files.items(): (opts.out/"data"/f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    def told(e):
        if e["event"] in ("preprocess", "stage_end", "validation"): print({k: v for k, v in e.items() if isinstance(v, (int, float, str))}, flush=True)
    run_pipeline(pair_config(opts), resume=(opts.out/"run"/"events.jsonl").exists(), listeners=(told,))

def judge(opts, name:str, data:str) -> dict:
    "Figures on the validation rows of a dataset; the texts themselves go to `--out`."
    s = Summarizer.from_pretrained(opts.out/"run", device=opts.device)
    s.cfg = s.cfg.override(dataset_name=f"{data}/{name}", max_eval_samples=opts.rows)
    report, rows, written = evaluate(s, "validation", opts.rows)
    ceiling_texts = read_text(s, rows)[1]
    ceiling = evaluate_predictions(rows, ceiling_texts)
    write_predictions(opts.out/f"{name}.model.jsonl", rows, written)
    write_predictions(opts.out/f"{name}.ceiling.jsonl", rows, ceiling_texts)
    keys = ("rouge1", "rouge2", "rougeL", "rougeLsum", "intervals", "text_facts", "length_ratio", "empty")
    short = lambda r: {k: r[k] for k in keys} | dict(text_facts=r["text_facts"]["all"])
    ladder = ladder_report(loss_ladder(s, rows[:opts.ladder_rows]))
    return dict(rows=report["rows"], unseen=report.get("unseen"), model=short(report), ceiling=short(ceiling), baselines=report["baselines"], ladder=ladder,
                reconstruction=reconstruction(s, [r["summary"] for r in rows[:opts.ladder_rows]]), latent_bytes=report.get("latent_bytes"), settings=report["settings"])

def collect(opts, corpus:Corpus):
    "Judge, and write everything to `--output`."
    about = {which: json.loads((opts.out/which/"training.json").read_text()) for which in ("decoder", "encoder")}
    events = [json.loads(line) for line in (opts.out/"run"/"events.jsonl").read_text().splitlines()]
    seconds = Counter({e["stage"]: e["seconds"] for e in events if e["event"] == "stage_end"})
    seconds["preprocess"] = sum(e["seconds"] for e in events if e["event"] == "preprocess")
    for a in about.values(): seconds.update({lesson["name"]: lesson["seconds"] for lesson in a["lessons"]})
    start, found = time.monotonic(), {name: judge(opts, name, os.environ["LATENT_SUMM_DATA"]) for name in opts.datasets}
    last = {which: {n: v for r in a["log"] for n, v in r.items() if n not in ("stage", "step", "seconds")} for which, a in about.items()}
    pair = {which: dict(parameters=a["parameters"], lessons=a["lessons"], last=last[which]) for which, a in about.items()}
    rows = {e["source"]: e["rows"] for e in events if e["event"] == "preprocess"}
    said = json.loads((opts.out/"commands.json").read_text())
    sizes = dict(width=opts.width, layers=opts.layers, vocabulary=opts.vocab, threads=torch.get_num_threads())
    write_json(opts.output, rounded(dict(commands=said, datasets=found, pair=pair, **sizes, rows=rows, seconds=seconds | dict(evaluate=round(time.monotonic() - start)),
                                         environment=environment())))


def options(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES), help="in this order (default: all)")
    p.add_argument("--datasets", nargs="+", default=["samsum", "dialogsum"], help="dialogues and summaries, trained on together and judged one by one (default: both)")
    p.add_argument("--general", nargs="*", default=["wikipedia", "arxiv", "prose"], help="further English (default: all three)")
    p.add_argument("--minutes", type=float, default=43, help="for the lessons in all; the stages come on top (default: %(default)s)")
    p.add_argument("--steps", type=int, help="of each lesson, in the place of minutes: to try the script out")
    p.add_argument("--width", type=int, default=192, help="of encoder and decoder (default: %(default)s)")
    p.add_argument("--layers", type=int, default=4, help="default: %(default)s")
    p.add_argument("--vocab", type=int, default=8192, help="pieces of each tokenizer (default: %(default)s)")
    p.add_argument("--batch-size", type=int, default=24, help="texts in a batch of the lessons; half as many dialogues for the decoder (default: %(default)s)")
    p.add_argument("--chars", type=int, default=1000, help="of a dialogue, in lessons and stages: whole lines up to so many (default: %(default)s)")
    p.add_argument("--max-seq-len", type=int, default=320, help="tokens of a dialogue; a longer one is read in parts when it is summarised (default: %(default)s)")
    p.add_argument("--train-rows", type=int, help="cap on the rows of each source (default: all pairs, 10,000 texts)")
    p.add_argument("--text-rows", type=int, default=30000, help="texts of stage 2 (default: %(default)s)")
    p.add_argument("--pair-rows", type=int, help="pairs of stage 4 (default: all)")
    p.add_argument("--epochs", type=int, help="of stages 2, 3 and 4 (default: as in preset mini)")
    p.add_argument("--rows", type=int, help="validation rows of each dataset (default: all)")
    p.add_argument("--ladder-rows", type=int, default=500, help="of them for ladder and reconstruction (default: %(default)s)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    p.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("build/real"), help="weights, texts, checkpoints, logs (default: %(default)s)")
    p.add_argument("--output", type=Path, default=RESULTS, help="the figures (default: beside this script)")
    opts = p.parse_args(args)
    if not os.environ.get("LATENT_SUMM_DATA"): p.error("LATENT_SUMM_DATA names no folder: it must hold " + ", ".join(opts.datasets + opts.general) + " as .jsonl or .jsonl.xz")
    changed = {k: v for k, v in vars(opts).items() if v != p.get_default(k) and k not in ("out", "output", "phases")}
    said = [f"--{k.replace('_', '-')} {' '.join(map(str, v if isinstance(v, list) else [v]))}" for k, v in changed.items()]
    opts.command = " ".join(["LATENT_SUMM_DATA=folder python nbs/experiments/real_text.py", *said])
    return opts

def note(opts, phase:str):
    "Remember with which command a phase was run last."
    path = opts.out/"commands.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, known | {phase: f"{opts.command} --phases {phase}"})

def main(args=None):
    opts = options(args)
    torch.set_num_threads(opts.threads)
    if opts.device != "cpu": torch.set_float32_matmul_precision("high")
    opts.out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(os.environ["LATENT_SUMM_DATA"], opts.datasets, opts.general, opts.chars, opts.train_rows)
    print(f"{len(corpus.pairs):,} pairs, {len(corpus.held):,} held out, {len(corpus.general):,} other texts", flush=True)
    teach = dict(decoder=teach_decoder, reading=teach_reading, encoder=teach_encoder, summaries=teach_summaries)
    for phase in (p for p in PHASES if p in opts.phases):
        print(f"--- {phase}", flush=True)
        note(opts, phase)
        if phase in teach:
            with lessons_on(opts.device): teach[phase](opts, corpus)
        else: dict(stages=run_stages, evaluate=collect)[phase](opts, corpus)


if __name__ == "__main__": main()
