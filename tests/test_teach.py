"""Stage 0: an encoder that is taught before the cache, survives being killed, and is used by the rest of the run and by nobody else's."""
import json
import os
import random
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forks import Command
from safetensors.torch import load_file

from latent_summ.encode import backbones
from latent_summ.encode.embed import cached_rows, preprocess, tokenise
from latent_summ.encode.embedder import embed_texts
from latent_summ.encode.tokens import count_forms, input_ids, slot_ids
from latent_summ.encode.windows import Windows, cell_shape
from latent_summ.train import stages
from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.config import Config, ConfigError
from latent_summ.data.messenger import chats
from latent_summ.data.sources import load_pairs
from latent_summ.model.decode import read_positions
from latent_summ.plan import stage_table
from latent_summ.use import codec
from latent_summ.use.inference import Summarizer
from latent_summ.use.ladder import latents_loss
from latent_summ.runtime import CacheError, CheckpointError, ModelError
from latent_summ.train.teach import Lesson, lesson_loss, with_latent_tokens
from latent_summ.train.words import find_windows, named_share, vocabulary_texts

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("LATENT_SUMM_KILL_SEED", random.SystemRandom().randrange(10**6)))
CPU = torch.device("cpu")
STEPS = 8


@pytest.fixture(scope="module")
def shared(tmp_path_factory): return tmp_path_factory.mktemp("teach")


def config(folder:Path, **changes) -> Config:
    "Stage 0 of eight steps, a checkpoint after every second, and a short stage 2 behind it."
    few = dict(messenger_rows=48, max_eval_samples=6, batch_size=8, gradient_accumulation_steps=2, save_every=2, warmup_steps=1, run_finetuning=False, pretrain_middle_epochs=0,
               pretrain_middle_max_samples=None, pretrain_adapter_epochs=1, pretrain_adapter_max_samples=32, pretrain_adapter_max_samples_wikitext=32,
               teach_encoder_steps=STEPS, teach_encoder_batch_size=4, teach_encoder_readout=0.5, teach_encoder_summaries=0.25)
    return Config.preset("mini").override(**few | dict(run_dir=str(folder), preprocess_cache_dir=str(folder.parent / "cache")) | changes)


def files(folder:Path) -> dict: return {p.name: p.read_bytes() for p in (folder / "encoder").iterdir()}


def events(folder:Path) -> list: return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def weights(folder:Path) -> dict: return load_checkpoint(folder / "checkpoints" / "best_model.pt")[0]["model"]


def killed(cfg:Config, steps:int, sign) -> tuple:
    "Train in another process and send it a signal after so many steps; its status and words."
    cfg.save(Path(cfg.run_dir + ".json"))
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())} # as here: another number gives other bits
    p = Command(["train", "--config", cfg.run_dir + ".json"], **variables)
    log = Path(cfg.run_dir) / "events.jsonl"
    def done(): return log.read_text().count('"event": "step"') if log.exists() else 0
    while p.poll() is None and done() < steps: time.sleep(0.005)
    if p.poll() is None: p.kill(sign)
    done = p.wait()
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def straight(shared) -> Path: return stages.run_pipeline(config(shared / "straight"))


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_lesson_and_resumed_gives_the_same_encoder_and_model(sign, straight, shared):
    cfg, first = config(shared / f"torn-{sign}"), random.Random(f"{SEED} {sign}").randrange(1, STEPS)
    print(f"seed {SEED}: killed after {first} of {STEPS} steps")
    status, said = killed(cfg, first, sign)
    assert status == (130 if sign == signal.SIGINT else -sign), said
    assert not (shared / f"torn-{sign}" / "encoder").exists()
    stages.run_pipeline(cfg, resume=True)
    starts = [e["step"] for e in events(Path(cfg.run_dir)) if e["event"] == "stage_start" and e["stage"] == "teach_encoder"]
    assert len(starts) == 2 and (starts[1] >= first or sign == signal.SIGKILL), starts  # it went on, and did not begin again
    assert files(straight) == files(Path(cfg.run_dir)), f"LATENT_SUMM_KILL_SEED={SEED}"
    ours, theirs = weights(straight), weights(Path(cfg.run_dir))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_the_lesson_is_told_like_a_stage_and_leaves_no_steps(straight):
    told = events(straight)
    assert [e["stage"] for e in told if e["event"] == "stage_end"] == ["teach_encoder", "pretrain_adapter"]
    plans = [[s["stage"] for s in e["stages"]] for e in told if e["event"] == "plan"]
    assert plans == [["teach_encoder"], ["teach_encoder", "pretrain_adapter"]]
    steps = [e for e in told if e["event"] == "step" and e["stage"] == "teach_encoder"]
    assert ["cross_entropy" in e for e in steps] == [False] * 4 + [True] * 4
    assert not list((straight / "checkpoints").glob("step-teach_encoder-*"))


def test_a_new_run_in_the_folder_teaches_anew(straight, shared):
    before = files(straight)
    other = config(straight, teach_encoder_steps=1)
    with pytest.raises(CheckpointError, match="teach_encoder_steps was 8, now 1"): stages.run_pipeline(other, resume=True)
    assert files(straight) == before
    stages.run_pipeline(other, overwrite=True)
    assert files(straight).keys() == before.keys() and files(straight) != before


def test_a_run_that_only_finetunes_needs_an_encoder_that_was_taught(shared):
    with pytest.raises(CheckpointError, match="run_pretraining=False starts from"):
        stages.run_pipeline(config(shared / "none", run_pretraining=False, run_finetuning=True))


def test_queries_are_taught_survive_a_kill_and_go_where_the_encoder_goes(shared):
    "Nothing but the queries learns here: the encoder itself stays as it was."
    cfg = config(shared / "queries", encoder_pooling="queries", num_encoder_unfrozen_layers=0)
    run = stages.run_pipeline(cfg)
    untaught = config(shared / "untaught", encoder_pooling="queries", teach_encoder_steps=0)
    with pytest.raises(ModelError, match="needs an encoder that was taught queries; 'mini' has none"): stages.run_pipeline(untaught)
    torn = config(shared / "queries-torn", encoder_pooling="queries", num_encoder_unfrozen_layers=0)
    assert killed(torn, 3, signal.SIGKILL)[0] == -signal.SIGKILL
    stages.run_pipeline(torn, resume=True)
    assert "queries.safetensors" in files(run) and files(run) == files(Path(torn.run_dir))
    mini, taught = backbones.load_encoder(cfg, CPU), backbones.load_encoder(cfg.override(modernbert_model=str(run / "encoder")), CPU)
    assert all(torch.equal(a, b) for a, b in zip(mini.model.state_dict().values(), taught.model.state_dict().values()))
    assert mini.queries is None and taught.identity["revision"] != mini.identity["revision"]

    summarizer = Summarizer.from_pretrained(run)
    summarizer.save_pretrained(shared / "moved")
    assert Summarizer.from_pretrained(shared / "moved").summarize(["Anna: dinner at 7?"]) == summarizer.summarize(["Anna: dinner at 7?"])
    file = run / "encoder" / "queries.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="is damaged"): stages.run_pipeline(cfg, resume=True)
    file.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="The queries beside the encoder"): backbones.load_encoder(cfg.override(modernbert_model=str(run / "encoder")), CPU)


def test_stage_4_trains_the_queries_end_to_end(shared):
    "They go into the model's own file; the folder of stage 0 stays as it was."
    few = dict(encoder_pooling="queries", num_encoder_unfrozen_layers=0, run_finetuning=True, finetune_middle_epochs=0, finetune_adapter_epochs=1,
               finetune_adapter_max_samples=16)
    before = stages.run_pipeline(config(shared / "frozen", **few))
    cfg = config(shared / "together", **few, finetune_adapter_train_queries=True)
    run = stages.run_pipeline(cfg)
    assert files(run) == files(before) and weights(run).keys() - weights(before).keys() == {f"queries.{name}" for name in load_file(run / "encoder" / "queries.safetensors")}
    taught = load_file(run / "encoder" / "queries.safetensors")["queries"]
    summarizer = Summarizer.from_pretrained(run)
    assert torch.equal(summarizer.encoder.queries.queries, weights(run)["queries.queries"]) and not torch.equal(summarizer.encoder.queries.queries, taught)
    summarizer.save_pretrained(shared / "together-moved")
    assert torch.equal(Summarizer.from_pretrained(shared / "together-moved").encode(["Anna: dinner at 7?"]), summarizer.encode(["Anna: dinner at 7?"]))
    summarizer.save_latents(shared / "a.safetensors", summarizer.encode(["Anna: hi"]))
    with pytest.raises(CacheError, match="queries"): Summarizer.from_pretrained(before).load_latents(shared / "a.safetensors")

    added = config(shared / "added", **few, run_pretraining=False, finetune_adapter_train_queries=True) # from a pretraining whose queries were frozen
    shutil.copytree(before / "encoder", Path(added.run_dir) / "encoder")
    (Path(added.run_dir) / "checkpoints").mkdir()
    shutil.copy(before / "checkpoints" / "best_model_pretrain.pt", Path(added.run_dir) / "checkpoints")
    assert weights(stages.run_pipeline(added)).keys() == weights(run).keys()
    for wrong, words in ((dict(encoder_pooling="mean"), "encoder_pooling=mean has none"), (dict(teach_encoder_steps=0), "'mini' has none")):
        with pytest.raises((ConfigError, ModelError), match=words):
            stages.run_pipeline(config(shared / "wrong", **few | wrong, finetune_adapter_train_queries=True))
    assert not (shared / "wrong").exists()


WINDOWS = dict(encoder_pooling="windows", prefix_len=80, embedding_normalizer="none", num_encoder_unfrozen_layers=0, teach_encoder_readout=1.0,
               teach_encoder_summaries=0.0)


def test_windows_are_found_with_the_head_and_the_adapter_that_a_model_starts_from(shared):
    "They are the same after a kill, go where the encoder goes, and the first two learn on in stage 4 where that is asked for."
    few = WINDOWS | dict(run_finetuning=True, pretrain_adapter_epochs=0, pretrain_adapter_max_samples=None,
                         finetune_middle_epochs=0, finetune_adapter_epochs=1, finetune_adapter_max_samples=16)
    cfg = config(shared / "windows", **few)
    run = stages.run_pipeline(cfg)
    lesson = [e for e in events(run) if e.get("stage") == "teach_encoder"]
    assert [e["event"] for e in lesson] == ["stage_start", "validation", "stage_end"] and 0 <= lesson[1]["loss"] < 0.5
    torn = config(shared / "windows-torn", **few)
    assert killed(torn, 1, signal.SIGKILL)[0] == -signal.SIGKILL
    stages.run_pipeline(torn, resume=True)
    assert {"queries.safetensors", "start.safetensors"} <= set(files(run)) and files(run) == files(Path(torn.run_dir))
    start = load_file(run / "encoder" / "start.safetensors")
    assert all(torch.equal(weights(run)[name], start[name]) for name in start) and {"adapter.prototypes", "adapter.words"} < set(start)

    idle = few | dict(finetune_adapter_train_middle=False)
    with pytest.raises(ConfigError, match="Nothing is trained in stage 4"): stages.run_pipeline(config(shared / "idle", **idle))
    untaught = few | dict(teach_encoder_steps=0)
    with pytest.raises(ModelError, match="needs an encoder that was taught windows; 'mini' has none"): stages.run_pipeline(config(shared / "untaught-w", **untaught))
    own = dict(modernbert_model=str(run / "encoder"), teach_encoder_steps=0)
    with pytest.raises(ModelError, match="was taught windows for prefix_len=80 with 16 numbers a slot"):
        stages.run_pipeline(config(shared / "longer", **few | own | dict(prefix_len=120)))
    with pytest.raises(ModelError, match="latent_dim=128 ask for 12"): stages.run_pipeline(config(shared / "narrow", **few | own | dict(latent_dim=128)))
    with pytest.raises(ModelError, match="together with other latents"): stages.run_pipeline(config(shared / "wider", **few | own | dict(latent_dim=512)))
    other = backbones.load_decoder(cfg, CPU)
    other.model.get_input_embeddings().weight.mul_(2)
    for part in (other.model, other.tokenizer): part.save_pretrained(shared / "other-words")
    with pytest.raises(CheckpointError, match="was taught from the decoder mini"):
        stages.run_pipeline(config(shared / "other-run", **few | own | dict(gpt2_model=str(shared / "other-words"))))
    assert not (shared / "other-run").exists()
    queries = few | own | dict(encoder_pooling="queries", embedding_normalizer="standard")
    with pytest.raises(ModelError, match="needs an encoder that was taught queries"): stages.run_pipeline(config(shared / "queries-w", **queries))

    codec = Summarizer.from_pretrained(run)
    back = codec.reconstruct(["Anna: dinner at 7?", ""]) # read off the slots
    assert "dinner" in back[0] and back[1] == ""
    latents = codec.encode(["Anna: dinner at 7?"])
    codec.model.stop_latent.data.copy_(latents.view_as(codec.model.stop_latent)) # now these mean: nothing to say
    assert codec.read(latents) == [""]
    together = stages.run_pipeline(config(shared / "windows-together", **few, finetune_adapter_train_queries=True))
    assert files(together) == files(run) and weights(together).keys() - weights(run).keys() == {f"queries.{name}" for name in load_file(run / "encoder" / "queries.safetensors")}
    summarizer = Summarizer.from_pretrained(together)
    assert torch.equal(summarizer.encoder.queries.map.weight, weights(together)["queries.map.weight"])
    summarizer.save_pretrained(shared / "windows-moved")
    chats = ["Anna: dinner at 7?", "Anna: tea?\nBen: yes"]
    assert Summarizer.from_pretrained(shared / "windows-moved").summarize(chats) == summarizer.summarize(chats)
    file = run / "encoder" / "start.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="is damaged"): stages.run_pipeline(cfg, resume=True)
    file.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="start.safetensors cannot be loaded"): backbones.load_encoder(cfg.override(modernbert_model=str(run / "encoder")), CPU)


def test_slots_of_windows_name_the_words_of_new_texts():
    "Also such as occur in no text that was read, but in the encoder's vocabulary."
    cfg = config(Path("unused"), **WINDOWS)
    encoder, decoder = backbones.load_encoder(cfg, CPU), backbones.load_decoder(cfg, CPU)
    texts = vocabulary_texts(cfg, encoder) + [r["dialogue"] for r in chats(40, seed=1)]
    readout = find_windows(cfg, encoder, decoder, texts, texts, CPU)
    new = [r["dialogue"][:150] for r in chats(20, seed=2)]
    assert named_share(cfg, encoder, decoder, readout, new) > 0.9
    vectors = torch.from_numpy(embed_texts(cfg, encoder, ["Anna: the guitar is in the kitchen"]))
    assert "guitar" not in " ".join(texts[-40:]) and " guitar" in [decoder.tokenizer.decode([i]) for i in readout.words(vectors)[0].tolist()]


def without_capitals(encoder):
    "The encoder with a tokenizer that drops capitals and line breaks, as BERT's do."
    from tokenizers import normalizers
    backend = encoder.tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("\n", " ")])
    assert count_forms(encoder.tokenizer) == 12
    return encoder


def test_capitals_and_line_breaks_come_through_an_encoder_that_reads_neither():
    cfg = config(Path("unused"), **WINDOWS)
    encoder, decoder = without_capitals(backbones.load_encoder(cfg, CPU)), backbones.load_decoder(cfg, CPU)
    texts = vocabulary_texts(cfg, encoder) + [r["dialogue"] for r in chats(200, seed=1)]
    readout = find_windows(cfg, encoder, decoder, texts, texts, CPU)
    assert named_share(cfg, encoder, decoder, readout, [r["dialogue"][:150] for r in chats(20, seed=2)]) > 0.9
    text = "Anna: Hi, see you\nAnna: See you Anna!\nAnna: ok"
    vectors = torch.from_numpy(embed_texts(cfg, encoder, [text, text.lower().replace("\n", " ")]))
    written, plain = (decoder.tokenizer.decode(ids).strip() for ids in readout.words(vectors))
    assert (written, plain) == (text, text.lower().replace("\n", " "))


@pytest.mark.parametrize("keeps_capitals", [True, False])
def test_numbers_of_a_chat_that_is_too_long_for_its_slots_stay_there(keeps_capitals):
    "What is left out are words that every chat has, and that say less."
    cfg = config(Path("unused"), **WINDOWS)
    encoder, decoder = backbones.load_encoder(cfg, CPU), backbones.load_decoder(cfg, CPU)
    if not keeps_capitals: encoder = without_capitals(encoder)
    texts = vocabulary_texts(cfg, encoder) + [r["dialogue"] for r in chats(200, seed=1)]
    readout = find_windows(cfg, encoder, decoder, texts, texts + ["0 1 2 3 4 5 6 7 8 9"] * 1000, CPU) # digits are frequent
    some = [r["dialogue"] for r in chats(100, seed=2) if re.search(r"\d", r["dialogue"])]
    room = [int(encoder.queries.token_cells[encoder.queries.usual_form(torch.tensor(ids))].sum()) for ids in input_ids(cfg, encoder, some)[0]]
    long = [text for text, cells in zip(some, room) if 90 < cells < 120] # of 80
    vectors = torch.from_numpy(embed_texts(cfg, encoder, long))
    read = decoder.tokenizer.batch_decode(readout.words(vectors))
    assert len(long) >= 5 and encoder.queries.filled(vectors).min() > 75
    for text, slots in zip(long, read): assert re.findall(r"\d", slots) == re.findall(r"\d", text), (text, slots)


def test_chats_of_one_length_share_a_batch_where_their_windows_are_read(tmp_path):
    "With and without facts beside them: the decoder reads no empty slots, so a long chat costs more."
    cfg = config(tmp_path / "run", **WINDOWS, finetune_adapter_epochs=1, run_finetuning=True)
    encoder, decoder = backbones.load_encoder(cfg, CPU), backbones.load_decoder(cfg, CPU)
    texts = vocabulary_texts(cfg, encoder) + [r["dialogue"] for r in chats(40, seed=1)]
    find_windows(cfg, encoder, decoder, texts, texts, CPU)
    encoder = replace(encoder, identity=encoder.identity | dict(revision="taught"))
    for beside in (0, 16):
        own = cfg.override(side_channel=beside)
        run = SimpleNamespace(cfg=own, encoder=encoder, decoder=decoder, sources=preprocess(own, encoder, decoder))
        stage = next(s for s in stage_table(own) if s.name == "finetune_adapter")
        rows = stages._rows(run, stage, "train")
        cells = encoder.queries.token_cells
        dialogues = {r["id"]: r["dialogue"] for r in load_pairs(own, "train")}
        wanted = [int(cells[ids].sum()) for ids in input_ids(own, encoder, [dialogues[i] for i in rows.ids])[0]]
        read = rows.lengths - rows.targets.lengths
        assert len(set(wanted)) > 10 and all(r == w if w <= 80 else 75 < r <= 80 for r, w in zip(read, wanted))
        assert (rows.facts is None) == (beside == 0)


def test_a_trained_model_reads_texts_in_the_forms_that_its_windows_know(tmp_path):
    "From the encoder's folder to a summarizer: also a text that is read in parts."
    cfg = config(tmp_path / "run", **WINDOWS)
    encoder = without_capitals(backbones.load_encoder(cfg, CPU))
    encoder.model.save_pretrained(tmp_path / "encoder")
    encoder.tokenizer.save_pretrained(tmp_path / "encoder")
    cfg = cfg.override(modernbert_model=str(tmp_path / "encoder"), preprocess_cache_dir=str(tmp_path / "cache"), max_seq_len=60)
    stages.run_pipeline(cfg)
    s = Summarizer.from_pretrained(cfg.run_dir)
    assert s.encoder.queries.forms == 12
    text = "Anna: Hi, see you\nAnna: See you Anna!\nAnna: ok"
    vectors = torch.from_numpy(embed_texts(s.cfg, s.encoder, [text]))
    assert torch.equal(s.encode([text]), s.model.document_latents(vectors))
    long = "\n".join([text] * 4)
    read, = s.reconstruct([long])
    assert len(read.splitlines()) > 8 and read.count("Anna: See you Anna") == 4, read


def test_prompts_of_one_length_are_written_together_and_every_text_keeps_its_place(tmp_path, monkeypatch):
    "A batch reads as many slots as its longest prompt, so texts of all lengths in one batch would all cost as much as the longest."
    cfg = config(tmp_path / "run", **WINDOWS)
    stages.run_pipeline(cfg)
    s = Summarizer.from_pretrained(cfg.run_dir)
    texts = [r["dialogue"][:n] for r, n in zip(chats(12, seed=3), [90, 10, 60, 20, 120, 40] * 2)]
    latents = s.encode(texts)
    lengths = s.slots_read(latents)
    assert len(set(lengths)) > 4
    batches, generate = [], codec.generate
    def watched(decoder, prefix, *options):
        is_read = read_positions(decoder, prefix)[:, len(decoder.bos_ids):][:, :80]
        batches.append((is_read * torch.arange(1, 81)).amax(1))
        return generate(decoder, prefix, *options)
    monkeypatch.setattr(codec, "generate", watched)
    written = s.decode(latents, batch_size=1, do_sample=False) # four at a time
    assert torch.cat(batches).tolist() == sorted(lengths, reverse=True)
    assert written == [s.decode(latents[i:i + 1], do_sample=False)[0] for i in range(12)]
    targets = [s.decoder.tokenizer(r["summary"])["input_ids"] for r in chats(12, seed=3)]
    alone = sum(latents_loss(s, latents[i:i + 1], targets[i:i + 1]) for i in range(12))
    assert latents_loss(s, latents, targets) == pytest.approx(alone, rel=1e-4)
    assert (s.slots_read(latents[:0]), s.decode(latents[:0]), s.summarize([]), latents_loss(s, latents[:0], [])) == ([], [], [], 0)


def test_a_cache_keeps_the_ids_of_the_encoder_without_the_forms_of_its_tokens():
    cfg = config(Path("unused"), **WINDOWS).override(cache_store_input_ids=True)
    encoder, decoder = without_capitals(backbones.load_encoder(cfg, CPU)), backbones.load_decoder(cfg, CPU)
    encoder.queries = Windows(8, encoder.hidden_size, *cell_shape(cfg), encoder.vocabulary, 12)
    window = tokenise(cfg, encoder, decoder, [dict(id="a", text="Anna: HI\nBen: hi")])
    assert max(window.inputs[0]) > encoder.vocabulary
    row, = cached_rows(cfg, window, [None])
    assert row["input_ids"] == encoder.tokenizer("anna: hi ben: hi")["input_ids"]


@pytest.mark.parametrize("tokenizer", ["usual", "spelt", "without capitals"])
def test_slots_name_every_token_of_a_text_that_fits(tokenizer):
    "In order and once, with its spaces, whatever pieces the decoder cuts the encoder's tokens into."
    cfg = config(Path("unused"), **WINDOWS).override(prefix_len=320, max_seq_len=400)
    encoder, decoder = backbones.load_encoder(cfg, CPU), backbones.load_decoder(cfg, CPU)
    if tokenizer == "spelt": decoder = replace(decoder, tokenizer=letters())
    if tokenizer == "without capitals": encoder = without_capitals(encoder)
    texts = ["Anna: see you at 10:30?\nBen: sure", "a", "Łódź  is 東京 🙂🙂\t!", "don't\n\nI'd've", *(r["dialogue"][:160] for r in chats(20, seed=1))]
    cfg = cfg.override(prefix_len=1600, latent_dim=1600, modernbert_hidden_dim=1600, middle_num_heads=1) # more slots than anybody needs
    encoder.queries = Windows(8, 1600, 200, 8, encoder.vocabulary, count_forms(encoder.tokenizer))
    encoder.queries.token_cells[:] = 16 # more than any token has pieces
    for text, ids in zip(texts, slot_ids(cfg, encoder, decoder, texts)):
        named = decoder.tokenizer.decode([i for i in ids if i != -100])
        if tokenizer == "without capitals": text = re.sub(r"\s*\n\s*", "", text) # where a line begins, no space is named
        assert named.replace("\n", "").split() == text.split()


def letters():
    "A tokenizer that spells every word."
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders
    from transformers import PreTrainedTokenizerFast
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    spelling = Tokenizer(models.BPE(vocabulary, []))
    spelling.pre_tokenizer, spelling.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=spelling)


@pytest.mark.parametrize("wrong, words", [
    (dict(prefix_len=50), "must be a multiple of latent_seq_len=8"), (dict(prefix_len=400), "share modernbert_hidden_dim=160: set prefix_len to 320 or less"),
    (dict(latent_dim=16, middle_num_heads=2), "share latent_dim=16: set prefix_len to 32 or less"), (dict(embedding_normalizer="standard"), "set embedding_normalizer to none"),
    *((dict([change]), "one lesson") for change in (("teach_encoder_readout", 0.5), ("teach_encoder_summaries", 0.5), ("teach_encoder_words", 0.5)))])
def test_what_windows_cannot_do_is_said_at_once(wrong, words):
    with pytest.raises(ConfigError, match=words): config(Path("unused"), **WINDOWS | wrong)


def tiny_pair(width:int, layers:int, heads:int, words:int):
    "ModernBERT and Gemma 3 as their configs make them, with random weights, behind the mini tokenizers."
    from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, ModernBertConfig, ModernBertModel
    size = dict(vocab_size=words, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=2 * width)
    encoder = ModernBertModel(ModernBertConfig(**size, pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2))
    decoder = Gemma3ForCausalLM(Gemma3TextConfig(**size, num_key_value_heads=1, head_dim=width // heads, query_pre_attn_scalar=width // heads))
    tokens = [AutoTokenizer.from_pretrained(backbones.MINI / what) for what in ("encoder", "decoder")]
    return backbones.Encoder(encoder.requires_grad_(False).eval(), tokens[0], {}), backbones.Decoder(decoder.requires_grad_(False).eval(), tokens[1], {})


def test_only_the_top_and_the_tokens_of_a_modernbert_learn():
    "Local and global attention layers, new latent tokens beyond the eight of the tokenizer, a table with rows to spare."
    torch.manual_seed(0)
    encoder, decoder = tiny_pair(64, 4, 4, 4000)
    cfg = Config.preset("mini").override(teach_encoder_steps=1, latent_seq_len=10, num_encoder_unfrozen_layers=2, modernbert_hidden_dim=64, gpt2_hidden_dim=64, use_bf16=False)
    encoder = with_latent_tokens(encoder, 10)
    assert len(encoder.latent_ids) == 10 and len(encoder.model.get_input_embeddings().weight) == 4000
    lesson = Lesson(cfg, encoder, decoder)
    lesson.requires_grad_(True)
    ids = torch.tensor([[1, *encoder.latent_ids, 50, 51, 2]])
    batch = dict(inputs=dict(input_ids=ids, attention_mask=torch.ones_like(ids)), labels=torch.tensor([[60, 61, 1]]), is_pair=torch.zeros(1))
    lesson_loss(lesson, batch, 1.0)[0].backward()
    learning = {n for n, p in encoder.model.named_parameters() if p.grad is not None}
    assert learning and all(n.startswith(("layers.2.", "layers.3.", "final_norm")) for n in learning)
    assert lesson.tokens.grad.abs().sum() > 0 and all(p.grad is None for p in decoder.model.parameters())
    assert not any("tok_embeddings" in k for k in lesson.state_dict()) and lesson.tokens.shape == (10, 64)


def test_an_encoder_of_another_make_says_what_to_set():
    cfg = Config.preset("mini").override(num_encoder_unfrozen_layers=9)
    with pytest.raises(ModelError, match="num_encoder_unfrozen_layers=9, but the encoder has"): Lesson(cfg, backbones.load_encoder(cfg, CPU), backbones.load_decoder(cfg, CPU))
