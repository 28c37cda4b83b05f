"""Facts beside the latents: which, in how many bytes, and that every way to a summary reads the same ones."""
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_summ.config import ConfigError
from latent_summ.data.messenger import chats
from latent_summ.data.side import pack_facts, side_facts, unpack_facts
from latent_summ.data.varied import with_made_up_names
from latent_summ.runtime import DataError
from latent_summ.use.inference import Summarizer
from latent_summ.use.latents import LatentFile

TEXTS = [with_made_up_names([r], random.Random(i))[0]["dialogue"] for i, r in enumerate(chats(20, "test"))]


@pytest.fixture(scope="module")
def s() -> Summarizer: return Summarizer.from_pretrained("mini")


@pytest.fixture(scope="module")
def plain() -> Summarizer:
    "The small model as if it had been trained without a side-channel."
    model = Summarizer.from_pretrained("mini")
    model.meta = model.meta | dict(config=model.meta["config"] | dict(side_channel=0))
    model.cfg = model.cfg.override(side_channel=0)
    return model


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300), st.integers(0, 255))
def test_bytes_never_exceed_the_budget(text, limit):
    packed = pack_facts(side_facts(text), limit)
    assert len(packed) + 1 <= max(limit, 1)
    assert not packed or set(unpack_facts(packed).split(", ")) <= set(", ".join(side_facts(text)).split(", "))


def test_off_is_the_model_without_it(s, plain):
    "Latents alone go the way they always went."
    assert s.summarize(TEXTS, side_channel=0) == plain.summarize(TEXTS)
    assert s.facts_of(TEXTS, side_channel=0) is None and plain.facts_of(TEXTS) is None


def test_all_ways_to_a_summary_read_the_same_facts(s, tmp_path):
    written = s.summarize(TEXTS)
    assert written != s.summarize(TEXTS, side_channel=0), "the facts are read"
    assert [s.summarize(t) for t in TEXTS[:3]] == written[:3], "in any company"
    assert "".join(s.stream(TEXTS[0])) == written[0]
    assert [f.summary for f in s.summarize(TEXTS[:3], support=True)] == written[:3]
    facts, latents = s.facts_of(TEXTS), s.compress_meaning(s.encode(TEXTS))
    assert s.decode(latents, facts=facts) == written
    path = s.save_latents(tmp_path / "a", latents, summary=True, facts=facts)
    assert s.load_latents(path).facts == facts == LatentFile(path).facts()
    assert path.stat().st_size - s.save_latents(tmp_path / "b", latents, summary=True).stat().st_size < sum(len(f) + 1 for f in facts) + 300


def test_fewer_bytes_in_one_call(s):
    latents, facts = s.compress_meaning(s.encode(TEXTS[:4])), s.facts_of(TEXTS[:4])
    assert s.decode(latents, facts=facts, side_channel=8) == s.summarize(TEXTS[:4], side_channel=8)
    assert max(map(len, s.facts_of(TEXTS, side_channel=8))) < 8 < max(map(len, facts))


def test_facts_that_cannot_be_read(s, plain):
    latents = s.encode(TEXTS[:2])
    with pytest.raises(ConfigError, match="reads at most 48 bytes of facts beside its latents, not 49"): s.summarize(TEXTS[:2], side_channel=49)
    with pytest.raises(ConfigError, match="without facts beside its latents.*--side-channel 32"): plain.summarize(TEXTS[:2], side_channel=32)
    with pytest.raises(ConfigError, match="reads at most 48 bytes"): Summarizer.from_pretrained("mini", side_channel=49)
    with pytest.raises(ConfigError, match="without facts beside its latents"): plain.decode(latents, facts=[b"Anna", b""])
    for wrong in ([b"Anna"], ["Anna", "Ben"]):
        with pytest.raises(DataError, match="facts must be bytes for each of the 2 rows"): s.decode(latents, facts=wrong)
    assert len(s.decode(latents, facts=[b"", b"\xff\xfe"])) == 2, "no facts, and bytes that are no text"
