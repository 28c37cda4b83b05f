"""A summary that its source does not support is marked as such; foreign text is reported before it is summarised.

Attack: right summaries of held-out chats into which one name, number or time is put that the chat lacks; chats written by hand; texts that are not chats,
in other languages, or on one line; from Python, on the command line and in a conversation, with and without the texts at hand. None of it may pass
unmarked, and the held-out chats themselves may not be marked without cause. A calibration that is damaged, or another model's, must be refused.
"""
import json
import shutil

import pytest
import torch

from latent_summ.config import ConfigError
from latent_summ.data.messenger import chats
from latent_summ.encode.backbones import MINI
from latent_summ.runtime import CheckpointError
from latent_summ.ui.chat import Chat
from latent_summ.ui.cli import main
from latent_summ.use.calibrate import is_right
from latent_summ.use.inference import Summarizer
from latent_summ.use.support import LOW, PARTS, SUPPORT_FILE, claims, mark

ALSO = []
BY_HAND = [
    "Anna: are we still on for dinner tomorrow?\nBen: yes! 7pm at Luigi's, I booked a table for four\nAnna: perfect, I will bring the cake",
    "Mum: did you feed the rabbits\nTim: not yet, doing it now\nMum: and shut the hutch please, there was a fox",
    "Priya: the build is red again\nTomek: it is my fault, I pushed to the wrong branch\nPriya: revert and we try after lunch",
    "Jo: landed!! queue at passport control is insane\nKit: take your time, I parked at P3\nJo: love you",
    "Sam: does anyone have notes from Tuesday's lecture on enzymes?\nLena: yes but they are awful\nSam: awful is better than nothing",
    "Dad: The plumber can only come between 8 and 12.\nMaja: I have an exam that morning\nDad: I will ask the neighbour to let him in",
    "Olu: match postponed, pitch is under water\nRhys: typical\nOlu: new date is the 14th, same kit",
    "Nadia: my visa was approved!!!\nPaul: wow congratulations, when do you start?\nNadia: in september, two weeks of training first",
]
OTHERS = [
    "The committee approved the budget on Thursday after a long debate about the new library. Construction is to begin in spring.",
    "def mean(xs):\n    total = sum(xs)\n    return total / len(xs)",
    "Anna: Kommst du morgen zum Fest?\nBernd: Leider nicht, ich muss arbeiten.\nAnna: Schade, dann bis Montag.",
    "flour 500 g, sugar 200 g, three eggs, a pinch of salt; bake at 180 degrees for 45 minutes",
    "Whereas the Lessee shall pay rent monthly in advance, the Lessor undertakes to keep the premises in good repair.",
]


@pytest.fixture(scope="module")
def mini(): return Summarizer.from_pretrained("mini")


def is_marked(found) -> bool: return found.support is None or found.support < LOW or bool(found.unsupported)


def test_what_is_put_in_is_marked(attacks):
    "One claim that the chat lacks, in an otherwise right summary."
    tried = 0
    for row in chats(150, "test"):
        for kind, word in (("name", "Quentin"), ("number", "987"), ("time", "23:59"), ("time", "February")):
            summary = f"{row['summary']} It was about {word}."
            assert (kind, word.lower(), False) in [tuple(c) for c in claims(summary, row["dialogue"])], summary
            assert f"{word}[?]" in mark(summary, claims(summary, row["dialogue"]))
            tried += 1
    attacks(tried)


def test_what_stands_is_not_marked(attacks):
    "The references of held-out chats say only what their chats say."
    rows = chats(400, "test")
    wrong = [r["summary"] for r in rows if any(not c.stands and c.kind != "negation" for c in claims(r["summary"], r["dialogue"]))]
    assert len(wrong) <= len(rows) // 100, wrong
    attacks(len(rows))


def test_held_out_chats_are_not_marked_without_cause(mini, attacks):
    rows = chats(200, "test", start=5000)
    found = mini.summarize([r["dialogue"] for r in rows], support=True)
    without_cause = [f.line for f, r in zip(found, rows) if is_marked(f) and is_right(f.summary, r)]
    assert len(without_cause) <= 8, without_cause  # 2 % of many; of 200 rarely more
    attacks(len(rows))


def test_foreign_texts_are_marked(mini, attacks):
    texts = BY_HAND + [t.replace("\n", " ") for t in BY_HAND] + OTHERS
    found = mini.summarize(texts, support=True)
    assert not [f.line for f in found if f.summary and not is_marked(f)]
    assert all(f.reason for f in found)
    assert sum("unlike the texts" in f.reason for f in found) >= len(found) // 2
    attacks(len(texts))


def test_foreign_texts_are_withheld(mini, attacks):
    found = mini.summarize(BY_HAND, support=True, min_support=0.5)
    assert [f.summary for f in found] == [""] * len(BY_HAND)
    assert all("is below 0.5: " in f.reason for f in found)
    attacks(len(BY_HAND))


def test_latents_alone_are_enough(mini, attacks):
    summaries = mini.summarize(BY_HAND)
    found = mini.support_of(mini.encode(BY_HAND), summaries)
    assert all(f.support < LOW and not f.claims for f in found)
    attacks(len(BY_HAND))


def run(capsys, *words) -> tuple:
    with pytest.raises(SystemExit) as e: main(["summarize", "--model", "mini", *words])
    out, err = capsys.readouterr()
    return e.value.code, out, err


def test_the_command_line_marks(tmp_path, capsys):
    code, out, err = run(capsys, BY_HAND[0])
    assert code == 0 and "[?]" in out and "[support 0.0" in out and "unlike the texts" in err
    _, bare, err = run(capsys, BY_HAND[0], "--no-support")
    assert "[" not in bare and "support" not in err
    code, out, err = run(capsys, BY_HAND[0], "--min-support", "0.5")
    assert (code, out) == (0, "\n") and "is below 0.5" in err
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(dict(id=f"r{i}", dialogue=t)) + "\n" for i, t in enumerate([BY_HAND[1], chats(1, "test")[0]["dialogue"]])))
    _, out, _ = run(capsys, "--input", str(tmp_path / "rows.jsonl"), "--min-support", "0.5")
    low, high = map(json.loads, out.splitlines())
    assert (low["summary"], high["reason"], low["id"]) == ("", "", "r0") and low["support"] < LOW < high["support"] and "below 0.5" in low["reason"]
    assert {"unsupported", "stands", "certainty", "least", "cycle", "distance", "foreign"} <= high.keys()
    _, out, _ = run(capsys, "--input", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out.csv"))
    assert "support" in (tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines()[0]


def test_a_conversation_marks(mini):
    chat = Chat(mini)
    for line in BY_HAND[0].splitlines(): assert list(chat.say(line)) == []
    summary, told = chat.say("")
    assert "[?]" in summary and told.startswith("    support 0.0")


@pytest.mark.parametrize("words", [["--candidates", "0"], ["--candidates", "-3"], ["--min-support", "1.5"], ["--min-support", "nan"]])
def test_numbers_that_cannot_be_meant_are_refused(words, capsys):
    code, out, err = run(capsys, "Anna: hi\nBen: hi", *words)
    assert code == 1 and not out and words[0] in err and words[1] in err


def test_candidates_zero_from_python(mini):
    for wrong in (0, -1, 1.5, True, None):
        with pytest.raises(ConfigError, match="candidates must be a whole number >= 1"): mini.summarize("Anna: hi", candidates=wrong)


def test_texts_without_facts_are_judged(mini):
    found = mini.summarize(["ok", "hm\nhm", "", "!!!"], support=True)
    assert [f.summary for f in found][2] == "" and found[2].support is None
    assert all(is_marked(f) for f in found if f.summary)


def test_a_calibration_of_another_model_is_refused(tmp_path, mini, attacks):
    shutil.copytree(MINI / "summarizer", tmp_path / "model")
    file = tmp_path / "model" / SUPPORT_FILE
    right = file.read_bytes()
    for at in range(len(right) - 1, 0, -len(right) // 12):
        file.write_bytes(right[:at] + bytes([right[at] ^ 4]) + right[at + 1:])
        with pytest.raises(CheckpointError, match="latent_summ calibrate"): _ = Summarizer.from_pretrained(tmp_path / "model").judge
    file.write_bytes(right)
    other = Summarizer.from_pretrained(tmp_path / "model")
    with torch.no_grad(): next(other.model.adapter.parameters()).add_(1e-3)
    with pytest.raises(CheckpointError, match="calibrated for another model: adapter '"): other.summarize("Anna: hi", support=True)
    file.unlink()
    without = Summarizer.from_pretrained(tmp_path / "model")
    assert without.summarize(BY_HAND[0], support=True).support is None
    with pytest.raises(CheckpointError, match="latent_summ calibrate"): without.summarize(BY_HAND[0], min_support=0.5)
    attacks(12)


def test_more_doubt_never_means_more_support(mini, draw, attacks):
    for _ in range(200):
        values = torch.tensor([[draw.uniform(-6, 6) for _ in PARTS]])
        more = values.clone()
        more[0, draw.randrange(len(PARTS))] += draw.uniform(0, 3)
        for fit in (mini.judge.sourced, mini.judge.unsourced): assert fit.support(more) <= fit.support(values)
    attacks(400)
