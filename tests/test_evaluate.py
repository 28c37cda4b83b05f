"""Scores worked by hand, what must hold for any texts, and the loss ladder on a model small enough to check by other means."""
import json
import math
import os
import random
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import constants as hub_constants
from hypothesis import given, settings as hypothesis_settings, strategies as st
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel, RobertaTokenizer

from latent_summ.use import bertscore as bs, evaluate as ev, facts as fa, ladder as la, predictions as pr, scores as sc
from latent_summ.encode.backbones import MINI, load_decoder, load_encoder
from latent_summ.model.compress import normalize_latents
from latent_summ.config import Config
from latent_summ.ui.demo import show_ladder, show_table
from latent_summ.encode.embedder import embed_texts
from latent_summ.encode.tokens import target_ids
from latent_summ.use.inference import Summarizer
from latent_summ.data.messenger import chats
from latent_summ.data.kinds import KINDS
from latent_summ.model.model import LatentSummarizer
from latent_summ.runtime import DataError, ModelError
from latent_summ.data.sources import load_pairs

ROWS = chats(40, "test", seed=0)
SUMMARIES = [r["summary"] for r in ROWS]
few = hypothesis_settings(max_examples=25, deadline=None)
words = st.lists(st.sampled_from("Anna Ben will lend not 20 euros on Friday . at 8:30 two".split()), min_size=1, max_size=12).map(" ".join)


# --- ROUGE ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("prediction", "reference", "expected"), [
    # 3 of 4 and 3 of 5 words, 1 of 3 and 1 of 4 pairs; the words in common stand in order; stems: lends = lend
    ("Anna lends Ben money", "Anna will lend Ben 20", (200 / 3, 200 / 7, 200 / 3, 200 / 3)),
    # all words, in another order: pairs "a b" and "c d" of three; the longest common sequence is two of four
    ("c d a b", "a b c d", (100, 200 / 3, 50, 50)),
    # two sentences swapped: as one sequence half is in order, line by line all of it
    ("Ben goes home. Anna sings songs.", "Anna sings songs. Ben goes home.", (100, 80, 50, 100)),
    ("nothing shared", "entirely different", (0, 0, 0, 0)),
])
def test_rouge_by_hand(prediction, reference, expected):
    assert sc.rouge_rows([prediction], [reference])[0] == pytest.approx(expected)


def test_lines_stay_lines_and_only_texts_without_any_are_split():
    assert sc.sentence_lines(" One. Two!  Three? four ") == "One.\nTwo!\nThree?\nfour"
    assert sc.sentence_lines("Anna: No. Why?\nBen: So.") == "Anna: No. Why?\nBen: So."


def test_several_references_are_a_mean_and_each_is_reported():
    rows = [dict(dialogue="Anna: a\nBen: b", summary="a b c d", summaries=["a b c d", "a b x y", "w x y z"]), dict(dialogue="A: c", summary="a b")]
    report = ev.evaluate_predictions(rows, ["a b c d", "a b"])
    assert [r["rows"] for r in report["by_reference"]] == [2, 1, 1]
    assert [r["rouge1"] for r in report["by_reference"]] == pytest.approx([100, 50, 0])
    assert report["rouge1"] == pytest.approx((50 + 100) / 2) and report["exact_match"] == 1
    assert ev.evaluate_predictions(rows, ["w x y z", "a b"])["exact_match"] == 1
    assert sc.length_ratio(["a b"], [["a", "a b c"]]) == 1


def test_rows_of_one_dialogue_are_merged_in_order():
    rows = [dict(id=i, dialogue=d, summary=s) for i, (d, s) in enumerate([("x", "1"), ("y", "2"), ("x", "3"), ("x", "1"), ("x", "0")])]
    assert sc.merge_references(rows) == [dict(rows[0], summaries=["1", "3", "1", "0"]), rows[1]]


# --- baselines --------------------------------------------------------------------------------------------------------

def test_baselines_by_hand():
    chat = "A: 1\n\nB: a longer line\n C: 22 \nD: the longest of all\nE: 333"
    assert sc.lead_n(chat) == "A: 1\nB: a longer line\nC: 22"
    assert sc.longest_n(chat) == "B: a longer line\nD: the longest of all\nE: 333"
    assert sc.random_n(chat, 5) == "\n".join(sc.dialogue_lines(chat)) and len(set(sc.random_n(chat).split("\n"))) == 3
    assert len({sc.random_n("\n".join(f"{i}: {j}" for j in range(9)), 1) for i in range(30)}) > 5, "another line for another dialogue"


DATA = os.environ.get("LATENT_SUMM_DATA")

@pytest.mark.skipif(not DATA, reason="LATENT_SUMM_DATA names no folder with real data")
@pytest.mark.parametrize(("make", "expected"), [(sc.lead_n, (32.53, 10.07, 25.35, 30.94)), (sc.longest_n, (32.79, 11.04, 25.07, 30.72)),
                                                (sc.random_n, (29.44, 8.22, 23.21, 27.97))])
def test_baselines_on_samsum_validation(make, expected):
    rows = list(load_pairs(Config(dataset_name=f"{DATA}/samsum"), "validation"))
    scores = sc.rouge_scores([make(r["dialogue"]) for r in rows], [r["summary"] for r in rows])
    assert len(rows) == 818 and [round(scores[m], 2) for m in sc.METRICS] == list(expected)


# --- facts ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "expected"), [
    ("Tom met Amanda at 8 p.m. or 8pm.", {("speaker", "amanda"), ("name", "tom"), ("time", "8pm")}),
    ("They paid 1,200.50 and twenty more, not ten.", {("number", "1200.50"), ("number", "20"), ("number", "10"), ("negation", "not")}),
    ("see you at 18:30 on friday, or in May; may I?", {("time", "18:30"), ("time", "friday"), ("time", "may")}),
    ("Somebody wouldn’t come. Nobody did.", {("negation", "not")}),
    ("I know a one-way street. The end. Marching on Sundays", {("time", "sunday")}),
    ("He said: \"Go home!\" and Warsaw's cold", {("name", "warsaw")}),
    ("", set()),
])
def test_facts_of_any_text(text, expected):
    found = fa.text_facts(text, {"amanda"}, {"tom"})
    assert found == expected


def test_text_fact_table_by_hand():
    row = dict(dialogue="Anna: hi\nBen: no", summary="Ben pays Anna 20 or 30 on Friday in Rome.")
    table = fa.text_fact_table(["Anna will not pay 20 in Oslo or Rome."], [row])
    numbers = table[["in_reference", "in_prediction", "both"]]
    assert numbers.loc["speaker"].tolist() == [2, 1, 1] and numbers.loc["name"].tolist() == [1, 2, 1] and numbers.loc["number"].tolist() == [2, 1, 1]
    assert numbers.loc["time"].tolist() == [1, 0, 0] and numbers.loc["negation"].tolist() == [0, 1, 0] and numbers.loc["all"].tolist() == [6, 5, 3]
    assert (table.recall["all"], table.precision["all"]) == (0.5, 0.6) and math.isnan(table.precision["time"]) and math.isnan(table.recall["negation"])


def test_a_fact_in_the_wrong_role_is_not_kept():
    row = dict(kind="money", summary="Walter will lend Sandra 20 euros. Sandra will pay it back on Friday.",
               facts=[dict(type=t, text=x) for t, x in (("person", "Walter"), ("person", "Sandra"), ("amount", "20 euros"), ("day", "Friday"))])
    judge = lambda text: (fa.fact_recall(text, row["facts"])[0], *fa.role_recall(text, row))
    assert judge(row["summary"]) == (4, 4, 4, True)
    assert judge("Sandra is borrowing 20 euros from Walter and will pay it back on Friday.") == (4, 4, 4, True), "other words, same roles"
    assert judge("Sandra will lend Walter 20 euros. Walter will pay it back on Friday.") == (4, 2, 4, True)
    assert judge("Walter will lend Sandra 20 euros. Walter will pay it back on Friday.") == (4, 3, 4, True), "two borrowers are none"
    assert judge("Walter and Sandra talked about 20 euros on Friday.") == (4, 0, 4, False)


def test_only_people_who_stand_side_by_side_may_swap():
    people = [dict(type="person", text=x) for x in ("Anna", "Ben")]
    meet = dict(kind="meet", summary="Anna and Ben will meet at the zoo on Friday at 6 pm.", facts=people)
    film = dict(kind="film", summary="Anna and Ben will see Paper Moon on Friday at 6 pm. Anna will buy the tickets.", facts=people)
    assert fa.role_recall("Ben and Anna will meet at the zoo on Friday at 6 pm.", meet)[0] == 2
    assert fa.role_recall("Ben has invited Anna to meet at the zoo on Friday at 6 pm.", meet)[0] == 0, "here the wording says who invites"
    assert fa.role_recall("Ben and Anna will see Paper Moon on Friday at 6 pm. Ben will buy the tickets.", film)[0] == 0


def test_each_kind_reads_its_own_summaries():
    rows = chats(600, "validation", seed=1)
    assert {r["kind"] for r in rows} == set(KINDS)
    for r in rows: assert fa.role_recall(r["summary"], r) == (len(r["facts"]), len(r["facts"]), True), r["summary"]


# --- BERTScore --------------------------------------------------------------------------------------------------------

def random_roberta(folder, positions:int=66):
    "A RoBERTa with weights as drawn and a byte for each token, but for two words that are one with a space before them; saved as a real one is."
    signs = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet()), "be", "ben", "Ġben", "an", "Ġan"]
    merges = [("b", "e"), ("be", "n"), ("Ġ", "ben"), ("a", "n"), ("Ġ", "an")]
    torch.manual_seed(0)
    cfg = RobertaConfig(vocab_size=len(signs), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, max_position_embeddings=positions)
    model = RobertaModel(cfg).eval()
    model.save_pretrained(folder)
    RobertaTokenizer(vocab={s: i for i, s in enumerate(signs)}, merges=merges).save_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder)


def by_definition(model, tokenizer, layer, a, b):
    "Zhang et al. 2020 in loops: one text at a time, all layers, ends are matched but not counted."
    def vectors(text):
        with torch.inference_mode(): x = model(torch.tensor([tokenizer(" " + text.strip())["input_ids"]]), output_hidden_states=True).hidden_states[layer][0]
        return [v / v.norm() for v in x]
    a, b = vectors(a), vectors(b)
    share = lambda of, among: sum(max(float(v @ w) for w in among) for v in of[1:-1]) / len(of[1:-1])
    p, r = share(a, b), share(b, a)
    return [100 * p, 100 * r, 200 * p * r / (p + r)]


def test_bertscore_of_a_roberta_is_the_definition(tmp_path, monkeypatch):
    model, tokenizer = random_roberta(tmp_path)
    assert tokenizer.tokenize(" ben an") == ["Ġben", "Ġan"] and "Ġben" not in tokenizer.tokenize("ben an"), "the first word needs its space"
    texts, others = ["ben an", "an", " an ben x ", "ben " * 9, "y"], ["an ben", "ben an an", "x", "an ben z", "ben"]
    expected = [by_definition(model, tokenizer, 2, *pair) for pair in zip(texts, others)]
    scorer = bs.load_bertscore(str(tmp_path), layer=2)
    for size in (1, 2, 32):
        monkeypatch.setattr(bs, "_AT_ONCE", size)
        assert bs.bertscore_rows(scorer, texts, [[o] for o in others]) == pytest.approx(np.array(expected), abs=1e-3)
    mean = [(np.array(expected[0]) + by_definition(model, tokenizer, 2, texts[0], "x")) / 2]
    assert bs.bertscore_rows(scorer, texts[:1], [[others[0], "x"]]) == pytest.approx(np.array(mean), abs=1e-3), "several references: their mean"
    assert bs.bertscore_rows(scorer, ["", " ", "an"], [["an"], ["an"], [""]]).tolist() == [[0] * 3] * 3


def test_what_bertscore_does_not_read_is_told(tmp_path, capsys):
    random_roberta(tmp_path)
    scorer = bs.load_bertscore(str(tmp_path), layer=1)
    assert scorer.limit == 64
    long = "ben " * 100
    assert bs.bertscore_rows(scorer, [long, "ben"], [[long + "an"], ["an"]])[0] == pytest.approx([100] * 3, abs=1e-3), "the first 64 tokens are the same"
    assert "BERTScore: 2 of 4 texts exceed 64 tokens" in capsys.readouterr().err


def test_bertscore_agrees_with_its_authors(tmp_path):
    "`bert-score` is not required: pip install bert-score, and this runs."
    theirs = pytest.importorskip("bert_score", reason="the package bert-score is not installed")
    tokenizer = AutoTokenizer.from_pretrained(MINI/"encoder", model_max_length=128)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    predictions = [sc.lead_n(r["dialogue"], 2) for r in ROWS]
    expected = torch.stack(theirs.score(predictions, SUMMARIES, model_type=str(tmp_path), num_layers=2), 1)
    ours = bs.bertscore_rows(bs.load_bertscore(str(tmp_path), layer=2), predictions, [[s] for s in SUMMARIES])
    assert ours == pytest.approx(100 * expected.numpy(), abs=1e-3)


def test_bertscore_stands_in_the_report_beside_that_of_the_baselines(tmp_path):
    random_roberta(tmp_path, 514)
    scorer, rows = bs.load_bertscore(str(tmp_path), layer=3), ROWS[:6]
    predictions = SUMMARIES[:3] + [""] + SUMMARIES[:2]
    report, plain = ev.evaluate_predictions(rows, predictions, bertscore=scorer), ev.evaluate_predictions(rows, predictions)
    own = bs.bertscore_rows(scorer, predictions, [[s] for s in SUMMARIES[:6]])
    assert [report[m] for m in ev.BERT_METRICS] == pytest.approx(own.mean(0)) and own[:4, 2] == pytest.approx([100, 100, 100, 0], abs=1e-3)
    lead = bs.bertscore_rows(scorer, [sc.lead_n(r["dialogue"]) for r in rows], [[s] for s in SUMMARIES[:6]])
    assert report["baselines"]["lead3"]["bertscore_f1"] == pytest.approx(lead[:, 2].mean()) and set(ev.BERT_METRICS) < report["intervals"].keys()
    assert "layer 3" in report["settings"]["bertscore"] and "not rescaled" in report["settings"]["bertscore"] and tmp_path.name in report["settings"]["bertscore"]
    assert str(tmp_path.parent) not in json.dumps(report), "no folder of this machine"
    for m in ev.BERT_METRICS: del report[m], report["intervals"][m]; [b.pop(m) for b in report["baselines"].values()]
    del report["settings"]["bertscore"]
    assert report == plain


def test_a_bertscore_model_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'FacebookAI/roberta-large' is not in the local cache, and HF_HUB_OFFLINE is set.*leave it out"): bs.load_bertscore()
    random_roberta(tmp_path)
    weights = load_file(tmp_path/"model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, tmp_path/"model.safetensors", dict(format="pt"))
    assert bs.load_bertscore(str(tmp_path), layer=2), "as many on the hub: nobody needs the pooler"
    save_file({k: v for k, v in weights.items() if "layer.1." not in k}, tmp_path/"model.safetensors", dict(format="pt"))
    with pytest.raises(ModelError, match="lacks 16 of its weights"): bs.load_bertscore(str(tmp_path), layer=2)
    with pytest.raises(ModelError, match="Give one from 1 to 3. It is known for roberta-large"): bs.load_bertscore(str(tmp_path))
    (tmp_path/"model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded"): bs.load_bertscore(str(tmp_path), layer=1)


# --- entities ---------------------------------------------------------------------------------------------------------

def test_entities_are_counted_where_they_are_asked_for(tmp_path):
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'latent_summ[spacy]'")
    made = spacy.blank("en")
    made.meta["name"] = "rules"
    made.add_pipe("entity_ruler").add_patterns([dict(label=k, pattern=[dict(LOWER=w) for w in p.split()]) for k, p in
        [("PERSON", "anna"), ("PERSON", "ben"), ("GPE", "the hague"), ("GPE", "hague"), ("GPE", "rome"), ("DATE", "next friday")]])
    made.to_disk(tmp_path)
    nlp = fa.load_entities(str(tmp_path))
    rows = [dict(dialogue="Anna: hi\nBen: no", summary="Ben meets Anna in the Hague next Friday.", summaries=["Ben meets Anna in the Hague next Friday.", "Anna sees Ben."])]
    report, plain = (ev.evaluate_predictions(rows, ["Anna's off to Hague, not Rome."], entities=n) for n in (nlp, None))
    found = report["text_facts"]
    assert {k: v for k, v in found.items() if k.startswith("entity")} == {
        "entity DATE": dict(in_reference=1, recall=0, precision=None), "entity GPE": dict(in_reference=1, recall=1, precision=0.25),
        "entity PERSON": dict(in_reference=4, recall=0.5, precision=1)}
    assert {k: v for k, v in found.items() if not k.startswith("entity")} == plain["text_facts"], "the others stay as they are, `all` as well"
    assert "en_rules 0.0.0" in report["settings"]["text_facts"] and plain["settings"]["text_facts"].endswith("no spaCy")
    spacy.blank("en").to_disk(tmp_path/"blank")
    with pytest.raises(ModelError, match="finds no entities; its parts are none"): fa.load_entities(str(tmp_path/"blank"))
    with pytest.raises(ModelError, match="python -m spacy download en_core_nothing"): fa.load_entities("en_core_nothing")


def test_without_spacy_entities_are_an_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ModelError, match=r"pip install 'latent_summ\[spacy\]'"): fa.load_entities()


# --- what must hold for any texts -------------------------------------------------------------------------------------

def test_one_row_has_no_interval(capsys):
    from latent_summ.ui.demo import show_table
    report = ev.evaluate_predictions(ROWS[:1], SUMMARIES[:1])
    show_table(report)
    assert report["intervals"] == {} and "One row: no interval can be computed." in " ".join(capsys.readouterr().out.split())


def test_the_references_themselves_score_everything():
    report = ev.evaluate_predictions(ROWS, SUMMARIES)
    assert [report[m] for m in sc.METRICS] == [100] * 4 and report["intervals"]["rouge1"] == [100, 100]
    assert [report[k] for k in ("fact_recall", "role_recall", "readable", "exact_match", "length_ratio")] == [1] * 5
    assert all(v["recall"] in (1, None) and v["precision"] in (1, None) for v in report["text_facts"].values())
    assert la.bleu(SUMMARIES, SUMMARIES) == pytest.approx(100)


def test_silence_scores_nothing():
    report = ev.evaluate_predictions(ROWS, [""] * 40)
    assert [report[m] for m in sc.METRICS] == [0] * 4 and (report["fact_recall"], report["exact_match"], report["length_ratio"], report["empty"]) == (0, 0, 0, 40)
    assert report["text_facts"]["all"]["recall"] == 0 and report["text_facts"]["all"]["precision"] is None and la.bleu([""] * 40, SUMMARIES) == 0
    assert report["readable"] == 0 and report["role_recall"] is None


def test_the_order_of_rows_does_not_matter():
    order = random.Random(3).sample(range(40), 40)
    predictions = SUMMARIES[1:20] + SUMMARIES[:1] + SUMMARIES[20:]
    one, other = (ev.evaluate_predictions([ROWS[i] for i in o], [predictions[i] for i in o]) for o in (range(40), order))
    for key in sc.METRICS: assert one[key] == pytest.approx(other[key]) and one["baselines"]["random3"][key] == pytest.approx(other["baselines"]["random3"][key])
    for key in ("fact_recall", "role_recall", "facts", "text_facts", "exact_match", "length_ratio", "readable"): assert one[key] == other[key]


@few
@given(words, words)
def test_scores_stay_within_their_bounds_and_know_equals(a, b):
    row = dict(dialogue="Anna: hi\nBen: hello", summary=b)
    scores, table = sc.rouge_rows([a], [b])[0], fa.text_fact_table([a], [row])
    assert (0 <= scores).all() and (scores <= 100 + 1e-9).all()
    assert scores[:3] == pytest.approx(sc.rouge_rows([b], [a])[0][:3]), "F is symmetric (but for RLsum, which looks for each line of the reference)"
    assert (table.both <= table[["in_reference", "in_prediction"]].min(axis=1)).all()
    assert sc.exact_match([a], [b]) == (a == b) and sc.rouge_rows([a], [a])[0, 0] in (0, pytest.approx(100)), "0 where a text is nothing but a full stop"


# --- intervals --------------------------------------------------------------------------------------------------------

def test_intervals_cover_as_often_as_they_say():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        values, weights = rng.exponential(2, 60), rng.integers(1, 9, 60)
        low, high = sc.bootstrap_interval(values * weights, weights, draws=300)
        hits += low <= 2 <= high
    assert 0.88 <= hits / 200 <= 0.98


def test_intervals_are_seeded_and_widen_with_confidence():
    x = np.arange(50.)
    assert sc.bootstrap_interval(x) == sc.bootstrap_interval(x) != sc.bootstrap_interval(x, seed=1)
    (a, b), (c, d) = sc.bootstrap_interval(x, confidence=0.5), sc.bootstrap_interval(x, confidence=0.99)
    assert c < a < x.mean() < b < d


# --- files ------------------------------------------------------------------------------------------------------------

def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_predictions_belong_to_ids_not_to_lines(tmp_path, capsys):
    file = write(tmp_path/"p.jsonl", *(dict(id=r["id"], output=r["summary"]) for r in reversed(ROWS)))
    report, rows, predictions = pr.score_predictions(file, ROWS)
    assert report["rouge1"] == 100 and report["rows"] == dict(evaluated=40, missing=0, extra=0) and predictions == SUMMARIES and rows == ROWS
    file = write(tmp_path/"q.jsonl", dict(id=ROWS[3]["id"], text=SUMMARIES[3]), dict(id="other", text="x"))
    report, _, predictions = pr.score_predictions(file, ROWS)
    assert report["rows"] == dict(evaluated=40, missing=39, extra=1) and report["rouge1"] == pytest.approx(100 / 40) and predictions[3] == SUMMARIES[3] and report["empty"] == 39
    said = capsys.readouterr().err
    assert "39 of 40 rows have no prediction" in said and "1 predictions are for ids that no row has (other" in said


def test_ids_that_are_numbers_in_the_file_match(tmp_path):
    rows = [dict(id="7", dialogue="Anna: hi", summary="Anna says hi.")]
    assert pr.score_predictions(write(tmp_path/"p.jsonl", dict(id=7, summary="Anna says hi.")), rows)[0]["rouge1"] == 100


def test_half_a_character_in_a_prediction_can_be_written(tmp_path):
    _, rows, predictions = pr.score_predictions(write(tmp_path/"p.jsonl", dict(id=ROWS[0]["id"], text="Anna \ud83d ok")), ROWS[:1])
    ev.write_predictions(tmp_path/"rows.jsonl", rows, predictions)
    ev.write_side_by_side(tmp_path/"page.html", rows, predictions)
    assert predictions == ["Anna \ufffd ok"] and "Anna \ufffd ok" in (tmp_path/"rows.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(("lines", "said"), [
    ('{"id": 1, "text": "a"}\n\n{"id": "1", "text": "b"}', "line 3: there is a prediction for '1' already"), ('{"id": 1}', "line 1 has no text under"),
    ('["a"]', "has no id"), ("{", "line 1 is no row"), ('{"id": 1, "text": null}', "has no text"), ("", "it is empty"), ('{"id": "x", "text": "a"}', "No id in"),
])
def test_unusable_predictions_are_refused_with_their_line(tmp_path, lines, said):
    (tmp_path/"p.jsonl").write_text(lines)
    with pytest.raises(DataError, match=said): pr.score_predictions(tmp_path/"p.jsonl", ROWS)


def test_the_page_runs_nothing(tmp_path):
    evil = "Eve: <script>alert(1)</script><img src=x onerror=\"alert(2)\"> &amp; {title}"
    rows = [dict(id=f"<i>{i}", dialogue=evil, summary=s) for i, s in enumerate(SUMMARIES)]
    ev.write_side_by_side(tmp_path/"x.html", rows, SUMMARIES[:20] + [evil] * 20, n=3)
    page = (tmp_path/"x.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page and "<i>" not in page and page.count("<tr><td>") == 6 and "&amp;amp; {title}" in page
    scores = [float(x.split("<")[0]) for x in page.split("<tr><td>")[1:]]
    assert scores == sorted(scores, reverse=True) and scores[0] == 100 > scores[-1]


# --- the model --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def summarizer():
    "A model as drawn: its texts are nonsense, its numbers are not."
    torch.manual_seed(0)
    cfg = Config.preset("mini").override(use_bf16=False, device="cpu", batch_size=5, max_generation_length=12)
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    model = LatentSummarizer(cfg, decoder.embedding_rms)
    model.normalizer.fit(torch.from_numpy(embed_texts(cfg, encoder, SUMMARIES)))
    return Summarizer(cfg, model, encoder, decoder)


@pytest.fixture(scope="module")
def ladder(summarizer): return la.loss_ladder(summarizer, ROWS[:12])


def nats_of(decoder, prompt, target) -> float:
    "Cross-entropy of target ids behind prompt embeddings: one row, no padding, plain logits."
    inputs = torch.cat([prompt, decoder.embed(torch.tensor([target]))], 1)
    with torch.inference_mode(): logp = decoder.model(inputs_embeds=inputs).logits[0].log_softmax(-1)
    return -sum(logp[prompt.shape[1] - 1 + i, t].item() for i, t in enumerate(target))


def test_the_loss_of_each_rung_is_that_of_a_plain_forward_pass(summarizer, ladder):
    s, rows, d = summarizer, ROWS[:12], summarizer.decoder
    from latent_summ.model.decode import prompt_embeds
    ids = lambda text: d.tokenizer(text, add_special_tokens=False)["input_ids"]
    targets = target_ids(s.cfg, d, SUMMARIES[:12])
    with torch.inference_mode():
        predicted = s.model.summary_latents(s.encode([r["dialogue"] for r in rows]))
        latents = dict(oracle=s.encode(SUMMARIES[:12]), predicted=predicted, null=torch.zeros_like(predicted))
    expected = {rung: sum(nats_of(d, prompt_embeds(d, s.model.prefix(z[None])), t) for z, t in zip(x, targets)) for rung, x in latents.items()}
    texts = [(d.bos_ids + ids(r["dialogue"] + "\n\nSummary:"), ids(" " + r["summary"]) + [d.eos_id]) for r in rows]
    expected["text"] = sum(nats_of(d, d.embed(torch.tensor([p])), t) for p, t in texts)
    tokens = sum(map(len, targets))
    for rung, nats in expected.items():
        assert ladder.cross_entropy[rung] == pytest.approx(nats / tokens, rel=1e-4), rung
        assert ladder.bits_per_text[rung] == pytest.approx(nats / math.log(2) / 12, rel=1e-4)
        assert ladder.carried_per_text[rung] == pytest.approx((expected["null"] - nats) / math.log(2) / 12, rel=1e-3, abs=1e-3)
    assert ladder.carried_per_token["text"] == pytest.approx(ladder.carried_per_text["text"] * 12 / tokens)


def test_shuffled_is_everybodys_own_somewhere_else(summarizer, ladder):
    for n in (2, 3, 12): assert sorted(la._elsewhere(n)) == list(range(n)) and all(i != j for i, j in enumerate(la._elsewhere(n)))
    rows = [dict(ROWS[0], id=str(i)) for i in range(3)]
    same = la.loss_ladder(summarizer, rows)
    assert same.cross_entropy["shuffled"] == pytest.approx(same.cross_entropy["predicted"], rel=1e-5), "equal rows have equal latents"
    assert ladder.cross_entropy["shuffled"] != pytest.approx(ladder.cross_entropy["predicted"], rel=1e-5)


def test_nulls(summarizer):
    latents = summarizer.encode(SUMMARIES[:4])
    zeros, stop, mean = (la._null_latents(summarizer, latents, n) for n in la.NULLS)
    assert zeros.abs().sum() == 0 and zeros.shape == stop.shape == mean.shape == (1, 8, 256)
    assert torch.equal(mean, normalize_latents(latents.mean(0, keepdim=True), True)) and summarizer.model.is_stop(stop).all()


def test_a_perfect_model_is_perfect_on_every_rung_it_should_be(summarizer, monkeypatch):
    "Latents that carry the row's number, and a decoder that looks the summary up: what is scored is what was written for that row."
    number = {t: i for i, r in enumerate(ROWS[:6]) for t in (r["dialogue"], r["summary"])}
    monkeypatch.setattr(Summarizer, "encode", lambda self, texts: torch.stack([torch.full((8, 256), 1.0 + number[t]) for t in texts]))
    monkeypatch.setattr(Summarizer, "decode", lambda self, latents, **kw: [SUMMARIES[int(x.mean().round()) - 1] if x.any() else "" for x in latents])
    monkeypatch.setattr(Summarizer, "compress_meaning", lambda self, latents: latents)
    ladder = la.loss_ladder(summarizer, ROWS[:6])
    for rung in ("oracle", "predicted"):
        assert [ladder.loc[rung, k] for k in ("rouge1", "fact_recall", "role_recall", "text_fact_recall", "exact_match")] == [100, 1, 1, 1, 1]
    assert ladder.rouge1["shuffled"] < 60 and ladder.exact_match["shuffled"] == 0 and ladder.rouge1["null"] == 0
    how = "sacreBLEU nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    again = la.reconstruction(summarizer, SUMMARIES[:6])
    assert again.pop("settings").startswith(how) and again == dict(texts=6, bleu=pytest.approx(100), exact_match=1, length_ratio=1)


def test_long_dialogues_are_cut_for_the_decoder_and_told(summarizer, capsys):
    d, limit = summarizer.decoder, la._context(summarizer.decoder)
    long, short = la.text_prompts(d, ["Anna: one two three\n" * 800, "Anna: hi"], la.SEPARATOR, 64)
    cue = d.tokenizer("\n\nSummary:", add_special_tokens=False)["input_ids"]
    assert len(long) == limit - 64 and long[-len(cue):] == short[-len(cue):] == cue and long[0] == d.bos_ids[0]
    assert "1 of 2 dialogues exceed the decoder's context of 1,024 tokens" in capsys.readouterr().err


def test_the_separator_changes_the_text_rung_alone(summarizer, ladder):
    other = la.loss_ladder(summarizer, ROWS[:12], separator="\nTL;DR:\n")
    assert other.cross_entropy["text"] > 2 * ladder.cross_entropy["text"]
    assert other.drop("text").cross_entropy.tolist() == pytest.approx(ladder.drop("text").cross_entropy.tolist())
    assert other.attrs["separator"] == "\nTL;DR:\n" and other.rouge1["text"] < ladder.rouge1["text"]


def test_the_decoder_that_reads_the_chat_writes_the_same_alone(summarizer):
    _, together = la.read_text(summarizer, ROWS[:7])
    assert together == [la.read_text(summarizer, [r])[1][0] for r in ROWS[:7]]


def test_tables_fit_a_terminal_and_a_file(summarizer, ladder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    report = ev.evaluate_predictions(ROWS, SUMMARIES[1:] + SUMMARIES[:1]) | dict(source="messenger", source_split="test")
    plain = la.ladder_report(ladder)
    assert json.loads(json.dumps(plain)) == plain and list(plain["rungs"]) == list(la.RUNGS) and plain["rows"] == 12
    show_table(report)
    show_ladder(plain)
    show_ladder(plain | dict(rungs={k: v | dict(fact_recall=None, role_recall=None) for k, v in plain["rungs"].items()}))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(word in out for word in ("random-3", "lead-3", "95 % intervals", "in role %", "the chat itself", "the model's own latents", "(12 chats)"))


def test_latency_and_bytes(summarizer):
    texts = [r["dialogue"] for r in ROWS[:3]]
    assert ev.latent_bytes(torch.ones(3, 8, 256), texts) == dict(float32=8192, int8=8 * 260, text=round(sum(len(t.encode()) for t in texts) / 3))
    times = ev.latency(summarizer, texts)
    assert times["texts"] == 3 and set(times) == {"texts", "encode", "middle", "decode"} and min(times.values()) > 0
