"""Real chats with pretrained backbones: what comes through 8 x 256 numbers, and what the same decoder makes of the chat itself.

    export LATENT_SUMM_DATA=folder        # with folders: chats (train and validation files of both datasets), samsum (both files), dialogsum (a validation file);
                                          # for `rebuild` also the files arxiv.jsonl and wikipedia.jsonl with a column `text`
    export LATENT_SUMM_BACKBONES=folder   # with the folders minilm, smollm2 and perhaps gemma; without it they come from the hub
    python nbs/experiments/real_chats.py train short              # one variant; --resume goes on with one that was stopped
    python nbs/experiments/real_chats.py train "short, more pairs" # one that starts from the pretraining of another variant, which must be there
    python nbs/experiments/real_chats.py named discriminants      # how many tokens the slots of an encoder with windows name after stage 0
    python nbs/experiments/real_chats.py cells --rows 64          # what the words say that slots should name, by how many cells a token has
    python nbs/experiments/real_chats.py judge short              # scores and ladder on both validation splits
    python nbs/experiments/real_chats.py search short --beams 4 --candidates 8 # the scores once more: greedy, with beams, and the best of candidates
    python nbs/experiments/real_chats.py rebuild short            # texts of four lengths back from their own latents: summaries, arXiv, Wikipedia
    python nbs/experiments/real_chats.py own short                # summaries of the ten chats in ten_chats.txt, as they come
    python nbs/experiments/real_chats.py baselines                # copied lines and one constant sentence
    python nbs/experiments/real_chats.py reader                   # ceiling: the same decoder reads the chat, with a trained correction
    python nbs/experiments/real_chats.py overlap                  # how many validation dialogues stand in the training file too
    python nbs/experiments/real_chats.py list

Results go into nbs/experiments/real_chats.json: figures, and summaries of our own ten chats. Weights and texts stay in --out (build/real_chats): the licences of
the datasets and of the backbones do not let them into a repository.
"""
import argparse
import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import torch

from latent_summ.config import Config
from latent_summ.data.sources import load_pairs, load_texts, shared_dialogues
from latent_summ.encode.backbones import load_decoder, load_encoder
from latent_summ.encode.embedder import embed_texts
from latent_summ.encode.tokens import count_pieces, input_ids, plain_ids, slot_ids, target_ids, token_cells, token_worth
from latent_summ.encode.trunk import with_trunk
from latent_summ.encode.windows import Windows, cell_shape
from latent_summ.model.decode import pad_labels
from latent_summ.model.head import head_loss, prefix_loss, token_importance
from latent_summ.model.model import LowRank, corrected_layers
from latent_summ.runtime import seed_everything, write_json
from latent_summ.train.optim import lr_factor
from latent_summ.train.run import environment
from latent_summ.train.stages import run_pipeline
from latent_summ.train.words import WindowReadout
from latent_summ.use.evaluate import evaluate_predictions, rounded
from latent_summ.use.ladder import SEPARATOR, ladder_report, loss_ladder, read_text, reconstruction, text_prompts
from latent_summ.use.facts import text_fact_table
from latent_summ.use.inference import Summarizer

RESULTS = Path(__file__).resolve().parent / "real_chats.json"
DATASETS = ("samsum", "dialogsum")
DATA = Path(os.environ.get("LATENT_SUMM_DATA", "."))
QUERIES = dict(encoder_pooling="queries", query_layers=4, encoder_early_layer=3, max_seq_len=256, embedding_normalizer="standard", prefix_len=50,
               adapter_latent_positions=True, adapter_flat_rank=512,
               optimizer="muon", learning_rate=1e-3, batch_size=64, pretrain_middle_epochs=1, finetune_adapter_batch_size=16, finetune_adapter_train_queries=False,
               latent_mixing=0.3, teach_encoder_batch_size=None, teach_encoder_dialogues=0.0, teach_encoder_summaries=0.5, teach_encoder_words=0.5, warmup_steps=30,
               prefix_separator="\n", finetune_adapter_train_middle=True, decoder_lora_layers="attention", decoder_lora_learning_rate=None, no_repeat_ngram_size=0,
               end_probability=0.0, stop_rows=2, fact_token_weight=1.0)
SHORT = QUERIES | dict(teach_encoder_steps=1400, pretrain_middle_max_samples=8000, pretrain_adapter_max_samples=16000, pretrain_adapter_epochs=2,
             readout_warmup=0.97, finetune_middle_epochs=3, finetune_middle_max_samples=12000, finetune_adapter_epochs=1,
             finetune_adapter_max_samples=5000, side_channel=0, side_channel_drop=0.5, decoder_lora_rank=0, max_eval_samples=100)
STARTS = { # variants that only finetune -> (the variant they start from, which of its two checkpoints)
    "short, more pairs": ("short", "pretrain"),
    "short, facts": ("short, more pairs", "finetune"),
    "short, again": ("short, more pairs", "finetune"),
    "short, facts, lora": ("short, facts", "finetune"),
    "short, facts, lora, both": ("short, facts, lora", "finetune"),
    "short, facts, lora, rest": ("short, facts, lora", "finetune"),
    "short, facts, lora, end to end": ("short, facts, lora, rest", "finetune"),
}
FEWER = dict(finetune_adapter_epochs=1, use_torch_compile=True, max_eval_samples=100, side_channel=48, side_channel_drop=0.25)
AGAIN = dict(finetune_middle_epochs=0, finetune_adapter_max_samples=12000, run_pretraining=False, use_torch_compile=True)
VARIANTS = { # name -> (what it is, settings that differ from --preset laptop)
    "laptop": ("the preset as it is, but compiled, on SAMSum alone: `latent_summ train --preset laptop --dataset-name knkarthick/samsum --use-torch-compile`",
               dict(use_torch_compile=True)),
    "short": ("queries that read the whole chat, and fewer rows in every stage: less than two hours of one core", SHORT),
    "short, more pairs": ("the same pretraining; the decoder sees 12,000 pairs instead of 5,000",
                          SHORT | dict(finetune_adapter_max_samples=12000, run_pretraining=False)),
    "short, facts": ("stage 4 once more, with 32 bytes of names, times and numbers beside the latents",
                     SHORT | AGAIN | dict(side_channel=32, side_channel_drop=0.25)),
    "short, again": ("stage 4 once more, with the latents alone", SHORT | AGAIN),
    "short, facts, lora": ("stage 4 a third time, on 8,000 pairs, with a correction of rank 8 (LoRA) of the decoder's attention",
                           SHORT | AGAIN | dict(side_channel=32, side_channel_drop=0.25, finetune_adapter_max_samples=8000, decoder_lora_rank=8)),
    "short, facts, lora, both": ("stage 4 a fourth time, on 4,000 pairs drawn from both datasets (the first 14,732 of the file are SAMSum's)",
                                 SHORT | AGAIN | dict(side_channel=32, side_channel_drop=0.25, finetune_adapter_max_samples=4000, decoder_lora_rank=8)),
    "short, facts, lora, rest": ("stage 4 a fourth time, on the last 5,000 pairs of SAMSum, which the third had not seen",
                                 SHORT | AGAIN | dict(side_channel=32, side_channel_drop=0.25, finetune_adapter_max_samples=5000, decoder_lora_rank=8)),
    "short, facts, lora, end to end": ("stage 4 a fifth time, on 5,600 pairs at lower rates, in which the queries and the compression head learn too",
                                       SHORT | AGAIN | dict(side_channel=32, side_channel_drop=0.25, finetune_adapter_max_samples=5600, decoder_lora_rank=8,
                                                            latent_mixing=0.0, learning_rate=3e-4, muon_learning_rate=8e-4, finetune_adapter_train_queries=True)),
    "discriminants": ("4,000 pairs of both datasets, once: slots are the words of the nearest tokens, found by linear discriminants",
                      FEWER | dict(finetune_adapter_max_samples=4000, decoder_lora_layers="attention", no_repeat_ngram_size=3, end_probability=0.0)),
    "discriminants, longer": ("8,000 pairs of both datasets, once: every linear layer of the decoder is corrected, not queries and values alone, "
                              "and every token of a summary counts the same in whatever batch",
                              FEWER | dict(finetune_adapter_max_samples=8000)),
    "forms": ("8,000 pairs of both datasets, once; slots also tell capitals and line breaks, which the encoder's tokenizer drops",
              FEWER | dict(finetune_adapter_max_samples=8000)),
    "short, last states": ("the same; the queries read the encoder's last states alone", SHORT | dict(encoder_early_layer=0)),
    "short, gemma": ("the same with the decoder Gemma-3-270m", SHORT | dict(gpt2_model="gemma", gpt2_hidden_dim=640)),
}


def backbones() -> dict:
    "Where encoder and decoder come from: the folder in LATENT_SUMM_BACKBONES, else the hub."
    place = os.environ.get("LATENT_SUMM_BACKBONES")
    return dict(modernbert_model=f"{place}/minilm", gpt2_model=f"{place}/smollm2") if place else {}


def shuffled(lines:list) -> list:
    "The pairs of both datasets in random order: the file has first one, then the other."
    mixed = list(lines)
    random.Random(0).shuffle(mixed)
    return mixed


def later_first(lines:list) -> list:
    "The pairs from the 9,733rd on, then those before: SAMSum has 14,732 for training."
    return lines[9732:] + lines[:9732]


ORDERS = {"short, facts, lora, both": shuffled, "short, facts, lora, rest": later_first, "discriminants": shuffled,
          "discriminants, longer": shuffled, "forms": shuffled} # variants that read the pairs in another order


def chats(name:str, out:Path) -> Path:
    "The folder with the pairs that a variant reads: chats, or a copy of it in another order."
    if name not in ORDERS: return DATA / ("samsum" if name == "laptop" else "chats")
    order = ORDERS[name]
    folder = out / f"{order.__name__}_chats"
    if folder.is_dir(): return folder
    folder.mkdir(parents=True)
    for path in (DATA / "chats").glob("*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        (folder / path.name).write_text("".join(order(lines)))
    return folder


def config(name:str, out:Path) -> Config:
    "The settings of a variant."
    changes = dict(backbones(), dataset_name=str(chats(name, out)), **VARIANTS[name][1])
    if changes.get("gpt2_model") == "gemma":
        changes["gpt2_model"] = f"{os.environ['LATENT_SUMM_BACKBONES']}/gemma"
    folder = name.replace(", ", "-").replace(" ", "-")
    return Config.preset("laptop").override(run_dir=str(out / folder), preprocess_cache_dir=str(out / "cache"), **changes)


def train(name:str, out:Path, resume:bool):
    "Train a variant, where need be from another one."
    cfg = config(name, out)
    run = Path(cfg.run_dir)
    if name in STARTS and not resume:
        start, model = STARTS[name]
        begun = Path(config(start, out).run_dir)
        files = dict(pretrain=cfg.pretrain_best_model_filename, finetune=cfg.finetune_best_model_filename)
        shutil.copytree(begun / "encoder", run / "encoder")
        (run / cfg.checkpoint_dir).mkdir()
        shutil.copy(begun / cfg.checkpoint_dir / files[model], run / cfg.checkpoint_dir / files["pretrain"])
    run_pipeline(cfg, resume=resume)


def validation(dataset:str, rows:int) -> list:
    "The first validation rows of a dataset."
    return list(load_pairs(Config(dataset_name=str(DATA / dataset)), "validation", rows))


def seen_in_training(pairs:list) -> set: # of ids
    "The rows whose dialogue stands in the training file too: the published splits overlap."
    return shared_dialogues(pairs, load_pairs(Config(dataset_name=str(DATA / "chats")), "train"))


def unseen_scores(pairs:list, texts:list) -> dict:
    "Scores without the rows that stand in the training file too."
    seen = seen_in_training(pairs)
    kept = [(p, t) for p, t in zip(pairs, texts) if p["id"] not in seen]
    return scores([p for p, _ in kept], [t for _, t in kept])


def overlap():
    "How many validation dialogues stand in the training file too."
    counts = {}
    for dataset in DATASETS:
        pairs = validation(dataset, 1000)
        counts[dataset] = dict(rows=len(pairs), in_training=len(seen_in_training(pairs)))
    save("overlap", dict(command="python nbs/experiments/real_chats.py overlap", datasets=counts))


def scores(rows:list, texts:list) -> dict:
    "ROUGE with intervals, and the names, numbers and times of the summaries that were kept."
    report = evaluate_predictions(rows, texts)
    kept = text_fact_table(texts, rows).recall
    keys = ("rouge1", "rouge2", "rougeL", "rougeLsum", "intervals", "length_ratio", "empty")
    facts = {kind: None if share != share else float(share) for kind, share in kept.items()}
    return {k: report[k] for k in keys} | dict(rows=len(rows), facts_kept=facts)


def save(key:str, found:dict):
    "Put an entry into the results, in place of an older one."
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    write_json(RESULTS, known | {key: rounded(found | dict(environment=environment()))})
    print(json.dumps(rounded(found))[:2000], flush=True)


def block_means(steps:list, size:int) -> list:
    "Steps in blocks: the last step's number, and the means of the losses. A block that is not full is left out."
    blocks = [steps[i:i + size] for i in range(0, len(steps) - size + 1, size)]
    columns = [{k: [s[k] for s in block if k in s] for k in block[-1]} for block in blocks] # a loss may begin within a block
    return [{k: sum(c) / len(c) for k, c in column.items()} | dict(step=column["step"][-1]) for column in columns]


def course(run:Path) -> dict:
    "Seconds of each stage, and its losses from beginning to end."
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    stages = {}
    for e in events:
        if "stage" not in e: continue
        stage = stages.setdefault(e["stage"], dict(seconds=0.0, steps=[], validation=[]))
        parts = {k: v for k, v in e.items() if k in ("step", "loss", "readout", "words", "cross_entropy", "mse", "contrastive")}
        if e["event"] == "stage_start": stage["steps"] = [s for s in stage["steps"] if s["step"] <= e["step"]] # a resumed run takes some again
        if e["event"] == "step": stage["steps"].append(parts)
        if e["event"] == "validation": stage["validation"].append(parts)
        if e["event"] == "stage_end": stage["seconds"] += e["seconds"]
    for stage in stages.values(): stage["steps"] = block_means(stage["steps"], max(len(stage["steps"]) // 20, 1))
    return {k: v for k, v in stages.items() if v["seconds"]}


ALONE = 300 # rows that are also summarised without their facts


def judge(name:str, out:Path, rows:int, climbed:int):
    "Scores of a trained variant on both validation splits; unless `climbed` is 0, also without facts, and the ladder, on the first rows."
    run = Path(config(name, out).run_dir)
    summarizer = Summarizer.from_pretrained(run)
    found = dict(what=VARIANTS[name][0], changed=VARIANTS[name][1],
                 command=f"python nbs/experiments/real_chats.py judge {name!r} --rows {rows} --ladder-rows {climbed}",
                 backbones={k: getattr(summarizer, k).identity for k in ("encoder", "decoder")}, course=course(run), datasets={})
    for dataset in DATASETS:
        pairs = validation(dataset, rows)
        texts = summarizer.summarize([r["dialogue"] for r in pairs])
        (out / f"{Path(run).name}.{dataset}.txt").write_text("\n".join(f"{r['summary']}\n-> {t}\n" for r, t in zip(pairs, texts)))
        found["datasets"][dataset] = scores(pairs, texts) | dict(not_in_training=unseen_scores(pairs, texts))
        if summarizer.cfg.side_channel and climbed: # the same model, from the latents alone
            alone = summarizer.summarize([r["dialogue"] for r in pairs[:ALONE]], side_channel=0)
            found["datasets"][dataset]["without_facts"] = scores(pairs[:ALONE], alone)
        if climbed: found["datasets"][dataset]["ladder"] = ladder_report(loss_ladder(summarizer, pairs[:climbed]))
        save(name, found)


def ladder(name:str, out:Path, rows:int):
    "The ladder alone, on more of SAMSum's validation rows than `judge` takes for it."
    summarizer = Summarizer.from_pretrained(Path(config(name, out).run_dir))
    found = dict(command=f"python nbs/experiments/real_chats.py ladder {name!r} --rows {rows}")
    save(f"ladder {name}", found | ladder_report(loss_ladder(summarizer, validation("samsum", rows))))


def search(name:str, out:Path, rows:int, beams:int, candidates:int):
    "Scores of a trained variant on SAMSum's first validation rows, written in several ways."
    summarizer = Summarizer.from_pretrained(Path(config(name, out).run_dir))
    command = f"python nbs/experiments/real_chats.py search {name!r} --rows {rows} --beams {beams} --candidates {candidates}"
    found = dict(command=command, ways={})
    pairs = validation("samsum", rows)
    sampled = dict(seed=0, temperature=0.6, top_p=1.0, top_k=0)
    ways = {"greedy": dict(no_repeat_ngram_size=0, end_probability=0.0)}
    ways |= {f"greedy, no {n} tokens twice": dict(no_repeat_ngram_size=n, end_probability=0.0) for n in (3, 5)}
    ways |= {f"{way}, an end that is likely": options | dict(end_probability=0.5) for way, options in list(ways.items())[1:]}
    if beams > 1: ways[f"{beams} beams"] = dict(num_beams=beams)
    if candidates > 1: ways[f"{candidates} candidates, the first with beams"] = dict(num_beams=beams, candidates=candidates, **sampled)
    for way, options in ways.items():
        start = time.process_time()
        texts = summarizer.summarize([r["dialogue"] for r in pairs], **options)
        found["ways"][way] = scores(pairs, texts) | dict(processor_seconds=time.process_time() - start)
        save(f"search {name}, {rows} rows", found)


def named(name:str, out:Path, rows:int):
    "How many tokens of validation texts the slots of a taught encoder name."
    command = f"python nbs/experiments/real_chats.py named {name!r} --rows {rows}"
    save(f"named {name}", dict(command=command) | slots_report(config(name, out), rows, min(rows, 64)))


WAYS = ("nothing", "the slots", "the words that the slots should name", "all tokens, on one line", "all tokens") # how the decoder reads a chat


def slots_report(cfg:Config, rows:int, read:int) -> dict:
    "What the slots of this run's taught encoder name, and what the decoder makes of the first chats."
    cfg = cfg.override(modernbert_model=str(Path(cfg.run_dir) / "encoder"), device="cpu")
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    readout = WindowReadout(cfg, decoder).eval()
    readout.load_state_dict(encoder.start)
    found = {}
    for kind in ("dialogue", "summary"):
        texts = [r[kind] for r in validation("samsum", rows)]
        vectors = torch.from_numpy(embed_texts(cfg, encoder, texts))
        labels = torch.tensor(slot_ids(cfg, encoder, decoder, texts))
        labels[labels == decoder.newline_id] = -100 # what empty cells name
        with torch.inference_mode(): words = torch.cat([readout.words(some) for some in vectors.split(32)])
        right = (words == labels)[labels != -100]
        found[kind] = dict(tokens=len(right), named=float(right.float().mean()))
        if kind == "dialogue": found[kind]["longer_than_the_slots"] = long_report(cfg, encoder, texts, decoder.tokenizer.batch_decode(words))
    return found | dict(nats=nats_by_way(cfg, encoder, decoder, readout, read))


def long_report(cfg:Config, encoder, texts:list, read:list) -> dict:
    "Names and numbers that slots name (`read`) of those texts that need more cells than there are."
    windows = encoder.queries
    room = lambda ids: windows.token_cells[windows.usual_form(torch.tensor(ids))].sum()
    long = [i for i, ids in enumerate(input_ids(cfg, encoder, texts)[0]) if room(ids) > windows.count]
    kept = text_fact_table([read[i] for i in long], [dict(dialogue=texts[i], summary=texts[i]) for i in long]).recall
    return dict(rows=len(long), facts_kept={kind: None if share != share else float(share) for kind, share in kept.items()})


@torch.inference_mode()
def nats_by_way(cfg:Config, encoder, decoder, readout, rows:int) -> dict: # way of reading -> nats a token
    "How well the decoder as it comes expects the summary, by what it reads of the chat before."
    pairs = validation("samsum", rows)
    chats = [r["dialogue"] for r in pairs]
    whole = plain_ids(decoder.tokenizer, chats)
    flat = plain_ids(decoder.tokenizer, [" " + text.replace("\n", " ") for text in chats])
    words = [[i for i in ids if i not in (-100, decoder.newline_id)] for ids in slot_ids(cfg, encoder, decoder, chats)]
    slots = decoder.embed(readout.words(torch.from_numpy(embed_texts(cfg, encoder, chats))))
    read = lambda lists: [decoder.embed(torch.tensor(ids[:cfg.max_seq_len])) for ids in lists]
    prefixes = dict(zip(WAYS, ([slots[0, :0]] * len(chats), slots, read(words), read(flat), read(whole))))
    return {way: nats_after(cfg, decoder, prefixes[way], pairs) for way in WAYS}


CELLS = ("one for each token", "one for each piece")


def cells(out:Path, rows:int):
    "How well the decoder as it comes expects the right summary from the words that slots should name, by how many cells a token has."
    found = dict(command=f"python nbs/experiments/real_chats.py cells --rows {rows}", rows=rows, datasets={})
    cfg = config("discriminants", out).override(device="cpu")
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    counts = count_pieces(encoder, decoder, [r["dialogue"] for r in load_pairs(cfg, "train", 16_384)])
    pieces = token_cells(counts, encoder.vocabulary)
    encoder.queries = Windows(cfg.latent_seq_len, encoder.hidden_size, *cell_shape(cfg), encoder.vocabulary)
    encoder.queries.token_worth[:] = token_worth(encoder, counts)
    for dataset in DATASETS:
        pairs = validation(dataset, rows)
        ways = found["datasets"][dataset] = {}
        for way, room in zip(CELLS, (torch.ones_like(pieces), pieces)):
            encoder.queries.token_cells[:] = room
            ids = [[i for i in ids if i not in (-100, decoder.newline_id)] for ids in slot_ids(cfg, encoder, decoder, [r["dialogue"] for r in pairs])]
            ways[way] = dict(words=sum(map(len, ids)) / len(ids), nats=nats_after(cfg, decoder, [decoder.embed(torch.tensor(i)) for i in ids], pairs))
    save("cells", found)


@torch.inference_mode()
def nats_after(cfg:Config, decoder, prefixes, pairs:list) -> float:
    "Nats per token of the right summaries, each after its prefix."
    losses = [prefix_loss(decoder, prefix[None], pad_labels([ids])) for prefix, ids in zip(prefixes, target_ids(cfg, decoder, [r["summary"] for r in pairs]))]
    return float(sum(total for total, _ in losses) / sum(count for _, count in losses))


LENGTHS = (16, 32, 64, 128) # tokens of the decoder


def cut_texts(summarizer, texts:list, tokens:int, count:int) -> list:
    "The first `count` texts that are long enough, each cut at a word's end to at most this many tokens."
    found = []
    for text in texts:
        ids, = target_ids(summarizer.cfg.override(max_target_len=10_000), summarizer.decoder, [text])
        if len(ids) <= tokens: continue
        cut = summarizer.decoder.tokenizer.decode(ids[:tokens]).strip().rsplit(" ", 1)[0]
        if cut: found.append(cut)
        if len(found) == count: break
    return found


def rebuild(name:str, out:Path, count:int):
    "Texts back from their own latents, by kind and length."
    summarizer = Summarizer.from_pretrained(Path(config(name, out).run_dir))
    read = lambda kind: [r["text"] for r in load_texts(Config(), str(DATA / f"{kind}.jsonl"), "train", 20 * count)]
    kinds = dict(summaries=[r["summary"] for r in validation("samsum", 1000)], arxiv=read("arxiv"), wikipedia=read("wikipedia"))
    found = dict(command=f"python nbs/experiments/real_chats.py rebuild {name!r} --rows {count}", prefix_len=summarizer.cfg.prefix_len)
    for kind, texts in kinds.items():
        for tokens in LENGTHS:
            some = cut_texts(summarizer, texts, tokens, count)
            if len(some) < 10: continue # too few texts are that long
            rows = [dict(dialogue=t, summary=t) for t in some]
            kept = text_fact_table(summarizer.reconstruct(some), rows).recall
            facts = {k: None if v != v else float(v) for k, v in kept.items()}
            found[f"{kind}, {tokens} tokens"] = reconstruction(summarizer, some) | dict(facts_kept=facts)
            save(f"rebuild {name}", found)


def own_chats() -> list:
    "Ten chats that the project wrote itself."
    return (RESULTS.parent / "ten_chats.txt").read_text().strip().split("\n\n")


def own(name:str, out:Path):
    "Their summaries."
    summarizer = Summarizer.from_pretrained(Path(config(name, out).run_dir))
    chats = own_chats()
    rows = [dict(chat=chat, summary=text) for chat, text in zip(chats, summarizer.summarize(chats))]
    save(f"own {name}", dict(command=f"python nbs/experiments/real_chats.py own {name!r}", rows=rows))


def constant_sentence(rows:list, kept:int=300) -> str:
    "The training summary that is nearest to the others by shared words: one sentence for every chat."
    words = [Counter(r["summary"].lower().split()) for r in rows]
    overall = Counter()
    for w in words: overall.update(w)
    def likeness(w): return sum(min(n, 1) * overall[k] for k, n in w.items()) / sum(w.values())
    best = sorted(range(len(rows)), key=lambda i: -likeness(words[i]))[:kept]
    sample = random.Random(0).sample(rows, min(200, len(rows)))
    rouge = lambda i: evaluate_predictions(sample, [rows[i]["summary"]] * len(sample))["rouge1"]
    return rows[max(best[:20], key=rouge)]["summary"]


def baselines(rows:int):
    "Copied lines and one constant sentence."
    found = dict(command="python nbs/experiments/real_chats.py baselines", datasets={})
    for dataset in DATASETS:
        pairs = validation(dataset, rows)
        train = [r for r in load_pairs(Config(dataset_name=str(DATA / "chats")), "train") if r["id"].startswith(dataset)]
        sentence = constant_sentence(train[:3000])
        copied = evaluate_predictions(pairs, [""] * len(pairs))["baselines"]
        found["datasets"][dataset] = dict(copied, constant=scores(pairs, [sentence] * len(pairs)), rows=len(pairs))
    save("baselines", found)


def reader(out:Path, rank:int, which:str, rows:int, most:int, resume:bool):
    "The same decoder reads the chat as tokens: as it comes, and with a correction that learns from the pairs, in the order and by the recipe of `discriminants, longer`."
    cfg = config("discriminants, longer", out).override(device="cpu", decoder_lora_rank=rank, decoder_lora_layers=which)
    found = dict(command=f"python nbs/experiments/real_chats.py reader --rank {rank} --layers {which} --rows {rows} --most {most}", rank=rank, layers=which)
    decoder = load_decoder(cfg, torch.device("cpu"))
    holder = argparse.Namespace(cfg=cfg.override(batch_size=64), decoder=decoder, device=torch.device("cpu"))
    sets = {dataset: validation(dataset, rows) for dataset in DATASETS}
    read = lambda: {dataset: scores(pairs, read_text(holder, pairs)[1]) for dataset, pairs in sets.items()}
    state = torch.load(out / "reader.pt") if resume else dict(plain=read(), losses=[], seconds=0.0)
    found["plain"] = state["plain"]
    if not most: return save("reader", found)
    found |= teach_reader(cfg, decoder, reader_batches(cfg, decoder, most), out / "reader.pt", state)
    found["trained"] = read()
    chats = own_chats()
    texts = read_text(holder, [dict(dialogue=chat, summary="") for chat in chats])[1]
    save("reader", found | dict(own=[dict(chat=chat, summary=text) for chat, text in zip(chats, texts)]))


def reader_batches(cfg:Config, decoder, most:int) -> list: # of (ids (rows, tokens), labels (rows, tokens - 1))
    "Chats with their summaries, those of one length together, in random order."
    pairs = list(load_pairs(cfg, "train", most))
    prompts = text_prompts(decoder, [r["dialogue"] for r in pairs], SEPARATOR, cfg.max_target_len)
    targets = target_ids(cfg, decoder, [" " + r["summary"] for r in pairs])
    order = sorted(range(len(pairs)), key=lambda i: len(prompts[i]))
    starts = list(range(0, len(order), cfg.finetune_adapter_batch_size))
    random.Random(0).shuffle(starts)
    groups = [order[start:start + cfg.finetune_adapter_batch_size] for start in starts]
    ids = [pad_labels([prompts[i] + targets[i] for i in some]) for some in groups]
    labels = [pad_labels([[-100] * len(prompts[i]) + targets[i] for i in some]) for some in groups]
    return [(some.masked_fill(some == -100, decoder.pad_id), wanted[:, 1:]) for some, wanted in zip(ids, labels)]


SAVED_EVERY = 50 # steps of the reader's lesson
AT_ONCE = 3200 # tokens: a batch of long chats is read in parts, since attention needs memory for every pair of tokens


def reader_loss(decoder, ids, labels, weights) -> torch.Tensor: # (rows, tokens) ids; (rows, tokens - 1) labels and weights
    "The sum of the targets' weighted cross-entropies."
    keep = labels != -100
    hidden = decoder.read(decoder.embed(ids))[:, :-1]
    return head_loss(decoder.model, hidden[keep], labels[keep], weights[keep], getattr(decoder.trunk, "head", None))


def teach_reader(cfg:Config, decoder, batches:list, kept:Path, state:dict) -> dict: # rows, losses, seconds
    "Teach a low-rank correction to write the summary after the chat, at the rate and with the weights of stage 4."
    seed_everything(0)
    corrections = torch.nn.ModuleList(LowRank(m, cfg.decoder_lora_rank) for m in corrected_layers(decoder.model, cfg.decoder_lora_layers))
    decoder = with_trunk(cfg, decoder, torch.device("cpu"), list(corrections))
    optimizer = torch.optim.AdamW(corrections.parameters(), lr=cfg.decoder_lora_learning_rate, weight_decay=0.0)
    weights = [token_importance(decoder, labels, cfg.fact_token_weight) for _, labels in batches]
    usual = float(sum(w.sum() for w in weights)) / len(batches)
    if "corrections" in state: # stopped before
        corrections.load_state_dict(state["corrections"])
        optimizer.load_state_dict(state["optimizer"])
    for step in range(len(state["losses"]), len(batches)):
        start = time.monotonic()
        for group in optimizer.param_groups: group["lr"] = cfg.decoder_lora_learning_rate * lr_factor(step, len(batches), cfg.warmup_steps)
        ids, labels = batches[step]
        total, rows = 0.0, max(1, AT_ONCE // ids.shape[1])
        for part in zip(ids.split(rows), labels.split(rows), weights[step].split(rows)):
            loss = reader_loss(decoder, *part)
            (loss / usual).backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(corrections.parameters(), cfg.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        state["losses"].append(round(total / float(weights[step].sum()), 3))
        state["seconds"] += time.monotonic() - start
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == len(batches):
            torch.save(state | dict(corrections=corrections.state_dict(), optimizer=optimizer.state_dict()), kept)
            print(f"reader: step {step + 1} of {len(batches)}, loss {sum(state['losses'][-50:]) / 50:.3f}, {state['seconds']:.0f} s", flush=True)
    means = [sum(part) / len(part) for part in (state["losses"][i:i + 50] for i in range(0, len(state["losses"]), 50))]
    return dict(rows=sum(len(ids) for ids, _ in batches), seconds=state["seconds"], losses_of_50_steps=means)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("list", "train", "named", "cells", "judge", "ladder", "search", "rebuild", "own", "baselines", "reader", "overlap"))
    p.add_argument("names", nargs="*", choices=[[], *VARIANTS], help="variants")
    p.add_argument("--out", type=Path, default=Path("build/real_chats"))
    p.add_argument("--rows", type=int, default=1000, help="validation rows of each dataset, at most")
    p.add_argument("--ladder-rows", type=int, default=200, help="of them for the ladder; 0: neither the ladder nor the scores without facts")
    p.add_argument("--beams", type=int, default=4, help="how many beginnings are kept at each word")
    p.add_argument("--candidates", type=int, default=8, help="to choose from")
    p.add_argument("--rank", type=int, default=32, help="of the reader's correction")
    p.add_argument("--layers", choices=("attention", "all"), default="all", help="that the reader's correction is for")
    p.add_argument("--most", type=int, default=8000, help="pairs of the reader's lesson; 0: only as it comes")
    p.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    opts = p.parse_args()
    for name, (what, _) in VARIANTS.items() if opts.what == "list" else (): print(f"{name:22} {what}")
    if opts.what == "baselines": baselines(opts.rows)
    if opts.what == "overlap": overlap()
    if opts.what == "cells": cells(opts.out, opts.rows)
    if opts.what == "reader": reader(opts.out, opts.rank, opts.layers, opts.rows, opts.most, opts.resume)
    for name in opts.names:
        if opts.what == "train": train(name, opts.out, opts.resume)
        if opts.what == "named": named(name, opts.out, opts.rows)
        if opts.what == "ladder": ladder(name, opts.out, opts.rows)
        if opts.what == "search": search(name, opts.out, opts.rows, opts.beams, opts.candidates)
        if opts.what == "own": own(name, opts.out)
        if opts.what == "rebuild": rebuild(name, opts.out, min(opts.rows, 50))
        if opts.what == "judge": judge(name, opts.out, opts.rows, opts.ladder_rows)


if __name__ == "__main__": main()
