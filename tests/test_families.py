"""Any family of backbones: it trains and writes as its own model does, or it is refused at loading. Tiny random models, built from transformers' configs."""
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latent_summ.encode import backbones
from latent_summ.encode.backbones import check_files, load_decoder, load_encoder
from latent_summ.config import Config
from latent_summ.model.decode import generate, prompt_embeds
from latent_summ.model.head import head_divergence, prefix_loss
from latent_summ.encode.embedder import embed_texts
from latent_summ.encode.families import head_of, layer_stack
from latent_summ.encode.queries import Queries, save_queries
from latent_summ.encode.tokens import input_ids
from latent_summ.encode.unpack import kept_missing, unpacked_folder
from latent_summ.model.model import LatentSummarizer, adopt_encoder, top_layers
from latent_summ.runtime import ModelError

WORDS, WIDTH = 300, 32
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
SMALL = dict(vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **IDS)
SEQ2SEQ = dict(vocab_size=WORDS, d_model=WIDTH, d_ff=64, d_kv=8, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=2)
BART = dict(vocab_size=WORDS, d_model=WIDTH, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128)
ROPE = SMALL | dict(num_key_value_heads=2, max_position_embeddings=256)
GEMMA = ROPE | dict(head_dim=8, sliding_window=16)
MAMBA = dict(vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, state_size=8, time_step_rank=4, **IDS)
DEBERTA = SMALL | dict(relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False)
ENCODERS = {
    "bert": SMALL, "roberta": SMALL | dict(max_position_embeddings=130, pad_token_id=0), "mpnet": SMALL | dict(max_position_embeddings=130),
    "deberta": DEBERTA, "deberta-v2": DEBERTA, "qwen3": ROPE | dict(head_dim=8), "gemma3_text": GEMMA, "mamba": MAMBA,
    "distilbert": dict(vocab_size=WORDS, dim=WIDTH, n_layers=2, n_heads=4, hidden_dim=64, pad_token_id=0),
    "electra": SMALL | dict(embedding_size=16), "albert": SMALL | dict(embedding_size=16), "xlm-roberta": SMALL | dict(max_position_embeddings=130),
    "t5": SEQ2SEQ, "mt5": SEQ2SEQ, "bart": BART, "nomic_bert": SMALL, "modernbert": SMALL | dict(cls_token_id=1, sep_token_id=2),
}
NO_STACK = {"albert"} # one layer, used again and again
POSITIONS = dict(bert=512, roberta=129, mpnet=128, distilbert=512, electra=512, albert=512, bart=128) | {"xlm-roberta": 129}
VISION = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=28, patch_size=14)
GPT = dict(vocab_size=WORDS, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2)
DECODERS = {
    "gemma3": dict(text_config=GEMMA, vision_config=VISION), "gemma3_text": GEMMA, "gemma2": GEMMA, "llama": ROPE, "mistral": ROPE, "qwen2": ROPE,
    "qwen3": ROPE | dict(head_dim=8), "gpt2": GPT, "gptj": GPT | dict(rotary_dim=4), "opt": SMALL | dict(word_embed_proj_dim=16, ffn_dim=64, max_position_embeddings=256),
    "gpt_neox": SMALL | dict(max_position_embeddings=256), "phi": ROPE, "granite": ROPE | dict(logits_scaling=8.0), "cohere": ROPE | dict(logit_scale=0.0625),
    "cohere2": ROPE | dict(logit_scale=0.0625, sliding_window=16), "falcon": SMALL, "bloom": dict(vocab_size=WORDS, hidden_size=WIDTH, n_layer=2, n_head=4, **IDS),
    "mamba": MAMBA,
}
REFUSED = { # family -> (config, how it is refused as a decoder)
    "bert": (SMALL, "looks ahead"), "t5": (SEQ2SEQ, "is a T5, which is not a model that continues a text"),
    "falcon_h1": (ROPE | dict(mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8), "cannot write after a prefix"),
    "gemma3n_text": (GEMMA | dict(layer_types=["sliding_attention", "full_attention"], num_kv_shared_layers=0, intermediate_size=[64] * 2, vocab_size_per_layer_input=WORDS,
                                  hidden_size_per_layer_input=8, laurel_rank=8, activation_sparsity_pattern=[0.0] * 2), "reads the ids of its words"),
    "gemma4_text": (GEMMA | dict(layer_types=["sliding_attention", "full_attention"], num_kv_shared_layers=0, vocab_size_per_layer_input=WORDS,
                                 hidden_size_per_layer_input=8), "cannot write after a prefix"),
}
REFUSED_ENCODERS = { # family -> (config, how it is refused as an encoder)
    "vit": (VISION, "no table of word embeddings"), "canine": (SMALL, "no table of word embeddings"), "fnet": (SMALL, "change with the padding"),
    "lxmert": (SMALL | dict(num_hidden_layers=dict(vision=1, cross_encoder=1, language=1)), "cannot be used as an encoder"), "dpr": (SMALL, "cannot be used as an encoder"),
    "embedding_gemma2_text": (GEMMA, "768 wide, although its config says 32"),
}


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    "Where unpacked models are kept: no test uses the user's own."
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder))
    return folder


def tokenizer(words:int=WORDS, **roles):
    vocab = dict(zip(["<pad>", "<s>", "</s>", "\n", "<unk>"], range(5)))
    vocab |= {f"▁w{i}": i for i in range(5, words)}
    fast = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=fast, **(dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>") | roles))


def random_model(auto, family:str, about:dict):
    torch.manual_seed(0)
    model = auto.from_config(CONFIG_MAPPING[family](**about)).eval()
    with torch.no_grad():
        for p in model.parameters(): p.normal_(0, 0.1)
    return model


def saved(auto, family:str, about:dict, folder:Path) -> Path:
    random_model(auto, family, about).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def settings(**more) -> Config:
    return Config.preset("mini").override(**(dict(modernbert_hidden_dim=WIDTH, gpt2_hidden_dim=WIDTH, max_seq_len=48, prefix_len=6, max_target_len=16,
                                                  max_generation_length=24, attn_implementation="sdpa", encoder_pooling="segments") | more))


def decoder_of(family:str, folder:Path, **more):
    width = 16 if family == "opt" else WIDTH
    return load_decoder(settings(gpt2_model=str(saved(AutoModelForCausalLM, family, DECODERS[family], folder)), gpt2_hidden_dim=width, **more))


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_reads(family, tmp_path):
    "The states are those of the family's own model, whatever stands behind a text, and its top layers are found."
    cfg = settings(modernbert_model=str(saved(AutoModel, family, ENCODERS[family], tmp_path / "x")))
    encoder = load_encoder(cfg)
    own = AutoModel.from_pretrained(tmp_path / "x").eval()
    own = own.get_encoder() if own.config.is_encoder_decoder else own
    ids = torch.randint(5, WORDS, (2, 9))
    with torch.no_grad(): wanted, found = (m(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state for m in (own, encoder.model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    vectors = embed_texts(cfg, encoder, ["w7 w8 w9", "w7 w8 w9 w10 w11 w12 w13"])
    alone = embed_texts(cfg, encoder, ["w7 w8 w9"])
    torch.testing.assert_close(torch.as_tensor(vectors[0]), torch.as_tensor(alone[0]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ENCODERS)
def test_the_top_of_an_encoder_learns(family, tmp_path):
    encoder = load_encoder(settings(modernbert_model=str(saved(AutoModel, family, ENCODERS[family], tmp_path / "x"))))
    if family in NO_STACK:
        with pytest.raises(ModelError, match="num_encoder_unfrozen_layers to 0"): top_layers(encoder.model, 1)
        return
    model = adopt_encoder(LatentSummarizer(settings()), encoder.model, 1)
    last = layer_stack(encoder.model)[0][-1]
    for p in model.encoder_top.parameters(): p.requires_grad_(True)
    ids = torch.randint(5, WORDS, (2, 9))
    encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in last.parameters())
    assert all(p.grad is None for p in layer_stack(encoder.model)[0][0].parameters() if not any(p is q for q in model.encoder_top.parameters()))


@pytest.mark.parametrize("family", POSITIONS)
def test_the_last_position(family, tmp_path):
    "As many tokens as the table has are read; one more is refused at loading."
    folder = str(saved(AutoModel, family, ENCODERS[family], tmp_path / "x"))
    encoder = load_encoder(settings(modernbert_model=folder, max_seq_len=POSITIONS[family]))
    ids = torch.full((1, POSITIONS[family]), 7)
    with torch.no_grad(): encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    with pytest.raises(ModelError, match=f"has {POSITIONS[family]} positions.*--max-seq-len {POSITIONS[family]}"):
        load_encoder(settings(modernbert_model=folder, max_seq_len=POSITIONS[family] + 1))


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_trains(family, tmp_path):
    "Loss and gradient are those of the family's own output layer, to 1e-4; so is the divergence from a teacher."
    decoder = decoder_of(family, tmp_path / "x")
    own = AutoModelForCausalLM.from_pretrained(tmp_path / "x").eval()
    labels = torch.tensor([[7, 8, 9, 2], [11, 12, 2, -100]])
    prefix = (torch.randn(2, 6, decoder.hidden_size) * decoder.embedding_rms).requires_grad_()
    loss, tokens = prefix_loss(decoder, prefix, labels)
    prompt = prompt_embeds(decoder, prefix)
    inputs = torch.cat([prompt, own.get_input_embeddings()(labels.clamp(min=0)).detach()], 1)
    logits = own(inputs_embeds=inputs, use_cache=False).logits[:, prompt.shape[1] - 1:-1]
    wanted = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    assert tokens == 7 and abs(loss.item() / wanted.item() - 1) < 1e-4
    mine, theirs = (torch.autograd.grad(x, prefix)[0] for x in (loss, wanted))
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    states = decoder.model.base_model(inputs_embeds=prompt, use_cache=False).last_hidden_state[0].detach()
    both = [own(inputs_embeds=prompt, use_cache=False).logits[0, 1:], own(inputs_embeds=prompt, use_cache=False).logits[0, :-1]]
    plain = F.kl_div(both[0].log_softmax(-1), both[1].log_softmax(-1), log_target=True, reduction="sum")
    assert abs(head_divergence(decoder.model, states[1:], states[:-1]).item() - plain.item()) < 1e-4 * max(1, plain.item())


WILD = dict(use_cache=False, cache_implementation="static", min_new_tokens=20, forced_eos_token_id=2, repetition_penalty=5.0, no_repeat_ngram_size=2, num_beams=3)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_writes(family, tmp_path):
    "1, 15, 16 and 20 rows at once write the same, and what the folder asks for changes nothing."
    decoder = decoder_of(family, tmp_path / "x")
    torch.manual_seed(1)
    prefix, cfg = torch.randn(20, 6, decoder.hidden_size) * decoder.embedding_rms, settings()
    texts = generate(decoder, prefix, cfg)
    assert any(texts) and len(texts) == 20
    for n in (1, 15, 16): assert [t for rows in prefix.split(n) for t in generate(decoder, rows, cfg)] == texts, n
    (tmp_path / "x" / "generation_config.json").write_text(json.dumps(WILD))
    again = load_decoder(settings(gpt2_model=str(tmp_path / "x"), gpt2_hidden_dim=decoder.hidden_size))
    assert generate(again, prefix, cfg) == texts


def test_what_a_greedy_decoder_writes_is_its_own(tmp_path):
    "Word by word, by the largest logit of the family's own model."
    for family in ("phi", "cohere", "gemma3", "opt"):
        decoder = decoder_of(family, tmp_path / family)
        own = AutoModelForCausalLM.from_pretrained(tmp_path / family).eval()
        prefix, ids = torch.randn(1, 6, decoder.hidden_size) * decoder.embedding_rms, []
        inputs = prompt_embeds(decoder, prefix)
        while len(ids) < 24 and (not ids or ids[-1] != 2):
            ids.append(own(inputs_embeds=inputs).logits[0, -1].argmax().item())
            inputs = torch.cat([inputs, own.get_input_embeddings()(torch.tensor([ids[-1:]]))], 1)
        assert generate(decoder, prefix, settings()) == [decoder.tokenizer.decode(ids, skip_special_tokens=True).strip()]


@pytest.mark.parametrize("family", REFUSED_ENCODERS)
def test_an_encoder_that_will_not_do_is_refused(family, tmp_path):
    about, reason = REFUSED_ENCODERS[family]
    folder = saved(AutoModel, family, about, tmp_path / "x")
    with pytest.raises(ModelError, match=reason) as e: load_encoder(settings(modernbert_model=str(folder)))
    assert str(folder) in str(e.value) and "encoder" in str(e.value)


def test_an_encoder_that_bf16_breaks_computes_in_fp32(tmp_path, capsys, monkeypatch):
    "DeBERTa fills its scores with a number that bf16 does not have: on hardware with bf16 its first batch would stop the run."
    monkeypatch.setattr("latent_summ.runtime.has_bf16", lambda device: True)
    for family, stays in (("deberta", True), ("bert", False)):
        cfg = settings(modernbert_model=str(saved(AutoModel, family, ENCODERS[family], tmp_path / family)))
        encoder = load_encoder(cfg)
        assert encoder.in_fp32 is stays
        found, exact = embed_texts(cfg, encoder, ["w7 w8"]), embed_texts(cfg.override(use_bf16=False), encoder, ["w7 w8"])
        assert (found == exact).all() == stays
    assert "deberta cannot compute in bfloat16; it computes in fp32" in "".join(capsys.readouterr())


@pytest.mark.parametrize("family", ["mamba", "qwen3", "distilbert"])
def test_queries_beside_any_encoder(family, tmp_path):
    "As many heads as the family has, or one: what is saved is loaded again."
    from latent_summ.train.teach import with_queries
    cfg = settings(modernbert_model=str(saved(AutoModel, family, ENCODERS[family], tmp_path / "x")))
    taught = with_queries(load_encoder(cfg), 3)
    save_queries(taught.queries, tmp_path / "x")
    again = load_encoder(cfg)
    assert isinstance(again.queries, Queries)
    states, mask = torch.randn(2, 5, WIDTH), torch.ones(2, 5)
    with torch.no_grad(): torch.testing.assert_close(again.queries(states, mask), taught.queries(states, mask))


def test_a_text_that_a_tokenizer_makes_nothing_of(tmp_path):
    "A lone zero-width space has no token in T5's tokenizer: it still has a vector, and so have its neighbours. T5 reads its end token."
    cfg = settings(modernbert_model=str(saved(AutoModel, "t5", SEQ2SEQ, tmp_path / "x")))
    encoder = load_encoder(cfg)
    for texts in ([""], ["w7 w8", ""]):
        vectors = torch.as_tensor(embed_texts(cfg, encoder, texts))
        assert vectors.isfinite().all() and len(vectors) == len(texts)
    class EndsTexts: # as T5's own tokenizer does
        def __init__(self, plain): self.plain = plain
        def __getattr__(self, name): return getattr(self.plain, name)
        def __call__(self, texts, **options):
            found = self.plain(texts, **options)
            return found if options.get("add_special_tokens") is False else dict(input_ids=[*found["input_ids"], 2])
    encoder.tokenizer = EndsTexts(encoder.tokenizer)
    assert input_ids(cfg, encoder, ["w7 w8", ""])[0] == [[7, 8, 2], [2]]


@pytest.mark.parametrize("family", REFUSED)
def test_a_decoder_that_will_not_do_is_refused(family, tmp_path):
    about, reason = REFUSED[family]
    folder = saved(AutoModelForCausalLM if family != "t5" else AutoModel, family, about, tmp_path / "x")
    with pytest.raises(ModelError, match=reason) as e: load_decoder(settings(gpt2_model=str(folder)))
    assert str(folder) in str(e.value) and "decoder" in str(e.value)


def test_a_cap_by_another_name(tmp_path):
    "RecurrentGemma's: loading compares the logits, so it would be refused without."
    about = SMALL | dict(num_hidden_layers=3, lru_width=WIDTH, num_key_value_heads=2, head_dim=8, attention_window_size=16, logits_soft_cap=2.0)
    assert head_of(load_decoder(settings(gpt2_model=str(saved(AutoModelForCausalLM, "recurrent_gemma", about, tmp_path / "x")))).model).cap == 2


def test_an_output_layer_nobody_expects_is_refused(tmp_path):
    "A scale that the config does not tell of: the loss would be another one."
    from transformers import LlamaForCausalLM
    folder, plain = saved(AutoModelForCausalLM, "llama", ROPE, tmp_path / "x"), LlamaForCausalLM.forward
    def louder(self, *args, **named):
        out = plain(self, *args, **named)
        out.logits = out.logits * 1.3
        return out
    with patch.object(LlamaForCausalLM, "forward", louder), pytest.raises(ModelError, match="would not be its own"): load_decoder(settings(gpt2_model=str(folder)))


# --- formats ----------------------------------------------------------------------------------------------------------

def as_pickle(folder:Path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for f in folder.glob("*.safetensors"): f.unlink()


def as_shards(folder:Path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


@pytest.mark.parametrize("change", [as_pickle, as_shards])
def test_other_files_are_the_same_model(change, tmp_path):
    decoder = decoder_of("llama", tmp_path / "x")
    prefix = torch.randn(2, 6, WIDTH)
    change(tmp_path / "x")
    again = load_decoder(settings(gpt2_model=str(tmp_path / "x")))
    assert again.identity["revision"] != decoder.identity["revision"] # other bytes
    assert generate(again, prefix, settings()) == generate(decoder, prefix, settings())
    one, other = (dict(d.model.named_parameters()) for d in (decoder, again))
    assert all(torch.equal(one[k], other[k]) for k in one)


def gguf_file(path:Path, vocab:int=64, without:str="") -> dict: # its weights
    "A tiny Llama as llama.cpp keeps it, in 8 bits."
    gguf = pytest.importorskip("gguf")
    writer, rng, weights = gguf.GGUFWriter(path, "llama"), torch.Generator().manual_seed(0), {}
    for add, value in (("context_length", 128), ("embedding_length", 32), ("block_count", 1), ("feed_forward_length", 64), ("head_count", 4), ("head_count_kv", 2),
                       ("layer_norm_rms_eps", 1e-5), ("rope_dimension_count", 8), ("vocab_size", vocab)): getattr(writer, f"add_{add}")(value)
    words = ["<unk>", "<s>", "</s>", "\n", *(f"▁w{i}" for i in range(4, vocab))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(i) for i in range(vocab)])
    writer.add_token_types([2, 3, 3, *[1] * (vocab - 3)])
    for role, i in (("bos", 1), ("eos", 2), ("unk", 0)): getattr(writer, f"add_{role}_token_id")(i)
    shapes = {"token_embd": (vocab, 32), "output": (vocab, 32), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32),
              "blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    for name, shape in shapes.items():
        weights[name] = torch.randn(shape, generator=rng) * 0.1
        if name == without: continue
        packed = gguf.quants.quantize(weights[name].numpy(), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"): writer.add_tensor(f"{name}.weight", torch.ones(32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def test_a_gguf_file(tmp_path, capfd):
    "Identified by its bytes, and an ordinary model from then on."
    weights = gguf_file(tmp_path / "m.gguf")
    decoder = load_decoder(settings(gpt2_model=str(tmp_path / "m.gguf")))
    torch.testing.assert_close(decoder.model.get_input_embeddings().weight, weights["token_embd"], rtol=0, atol=3e-3)
    assert decoder.identity["name"] == "m.gguf" and len(decoder.identity["revision"]) == 16
    assert "quantiz" not in capfd.readouterr().err # no bars
    decoder.model.save_pretrained(tmp_path / "unpacked")
    decoder.tokenizer.save_pretrained(tmp_path / "unpacked")
    again, prefix = load_decoder(settings(gpt2_model=str(tmp_path / "unpacked"))), torch.randn(2, 6, 32)
    assert generate(again, prefix, settings()) == generate(decoder, prefix, settings())
    data = bytearray((tmp_path / "m.gguf").read_bytes())
    data[-100] ^= 1
    (tmp_path / "m.gguf").write_bytes(data)
    assert load_decoder(settings(gpt2_model=str(tmp_path / "m.gguf"))).identity["revision"] != decoder.identity["revision"]


class Unpackings:
    "Counts how often transformers unpacks a GGUF file."
    def __init__(self, monkeypatch):
        self.count, plain = 0, backbones._from_files
        def counting(auto, place, cfg, device):
            self.count += place.is_file()
            return plain(auto, place, cfg, device)
        monkeypatch.setattr(backbones, "_from_files", counting)


def same_model(one, other) -> bool:
    weights, others = one.model.state_dict(), other.model.state_dict()
    return one.identity == other.identity and weights.keys() == others.keys() and all(torch.equal(weights[k], others[k]) for k in weights)


def test_a_gguf_file_is_unpacked_once(tmp_path, home, monkeypatch, capsys):
    "Also under another name; again if what was kept has changed, or the file has."
    gguf_file(tmp_path / "m.gguf")
    cfg, unpackings = settings(gpt2_model=str(tmp_path / "m.gguf")), Unpackings(monkeypatch)
    first = load_decoder(cfg)
    assert same_model(load_decoder(cfg), first) and unpackings.count == 1
    (tmp_path / "copy.gguf").write_bytes((tmp_path / "m.gguf").read_bytes())
    assert load_decoder(settings(gpt2_model=str(tmp_path / "copy.gguf"))).identity["revision"] == first.identity["revision"] and unpackings.count == 1
    said = capsys.readouterr().err
    assert said.count("unpacking m.gguf") == 1 and str(home) in said
    kept = unpacked_folder(tmp_path / "m.gguf", "AutoModelForCausalLM")
    assert check_files(tmp_path / "m.gguf", "decoder", cfg)[0] == "llama" # the doctor reads what is kept
    with pytest.raises(ModelError, match="32 wide"): check_files(tmp_path / "m.gguf", "decoder", cfg.override(gpt2_hidden_dim=64))
    data = (kept / "model.safetensors").read_bytes()
    (kept / "model.safetensors").unlink() # the loaded models still have it open
    (kept / "model.safetensors").write_bytes(data[:-8])
    assert same_model(load_decoder(cfg), first) and unpackings.count == 2
    for leftover in kept.iterdir(): leftover.unlink()
    assert check_files(tmp_path / "m.gguf", "decoder", cfg)[0].startswith("GGUF")
    assert same_model(load_decoder(cfg), first) and unpackings.count == 3
    assert [p.name for p in (home / "latent_summ" / "gguf").iterdir() if p.is_dir()] == [kept.name]


def test_a_gguf_file_that_cannot_be_kept(tmp_path, home, monkeypatch, capsys):
    "A full disk, or no place at all: the model is the same, and a note says that it will be unpacked again."
    gguf_file(tmp_path / "m.gguf")
    cfg, unpackings = settings(gpt2_model=str(tmp_path / "m.gguf")), Unpackings(monkeypatch)
    def full(*args, **options): raise OSError(28, "No space left on device")
    with patch("transformers.PreTrainedModel.save_pretrained", full): one = load_decoder(cfg)
    assert "cannot be kept" in capsys.readouterr().err and kept_missing(unpacked_folder(tmp_path / "m.gguf", "AutoModelForCausalLM")) is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", "/dev/null")
    assert same_model(load_decoder(cfg), one) and unpackings.count == 2
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(home))
    assert not [p for p in (home / "latent_summ" / "gguf").iterdir() if p.is_dir()]
    assert same_model(load_decoder(cfg), one) and unpackings.count == 3 and same_model(load_decoder(cfg), one) and unpackings.count == 3


def test_several_that_unpack_at_once(tmp_path, monkeypatch):
    "One unpacks, the others wait for it; what a killed process left behind is in nobody's way."
    from latent_summ.encode.unpack import read_gguf
    gguf_file(tmp_path / "m.gguf")
    kept, unpacked, inside = unpacked_folder(tmp_path / "m.gguf", "AutoModelForCausalLM"), [], threading.Barrier(2, timeout=5)
    part = kept.with_name(f".{kept.name}.part")
    part.mkdir(parents=True)
    (part / "half").write_text("x")
    def read(place):
        if place.is_file():
            unpacked.append(place)
            with pytest.raises(threading.BrokenBarrierError): inside.wait(0.5) # nobody else comes in meanwhile
        return backbones._from_files(AutoModelForCausalLM, place, settings(), torch.device("cpu"))
    with ThreadPoolExecutor(3) as pool: found = [f.result() for f in [pool.submit(read_gguf, tmp_path / "m.gguf", "AutoModelForCausalLM", read) for _ in range(3)]]
    assert len(unpacked) == 1 and all(torch.equal(a, b) for _, m, _ in found for a, b in zip(m.parameters(), found[0][1].parameters())) and not part.exists()


def test_a_gguf_file_that_lacks_weights(tmp_path):
    "Each time the same message: what is kept remembers it."
    gguf_file(tmp_path / "m.gguf", without="blk.0.attn_q")
    for _ in range(2):
        with pytest.raises(ModelError, match="lacks 1 of its weights"): load_decoder(settings(gpt2_model=str(tmp_path / "m.gguf")))


@pytest.mark.parametrize("keep", [0, 3, 20, 500, 5000, -2000])
def test_a_torn_gguf_file(keep, tmp_path):
    gguf_file(tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data[:keep])
    with pytest.raises(ModelError, match="GGUF"): load_decoder(settings(gpt2_model=str(tmp_path / "m.gguf")))


def test_a_foreign_gguf_file(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "whisper")
    writer.add_tensor("x", torch.ones(32).numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close): step()
    with pytest.raises(ModelError, match="cannot be loaded.*GGUF"): load_decoder(settings(gpt2_model=str(tmp_path / "m.gguf")))
    with pytest.raises(ModelError, match="is not a file here"): load_decoder(settings(gpt2_model=str(tmp_path / "none.gguf")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'latent_summ\[gguf\]'"): load_decoder(settings(gpt2_model=str(tmp_path / "m.gguf")))


# --- refused at loading -----------------------------------------------------------------------------------------------

def packed(folder:Path, method:str):
    about = json.loads((folder / "config.json").read_text()) | dict(quantization_config=dict(quant_method=method, bits=4, load_in_4bit=True))
    (folder / "config.json").write_text(json.dumps(about))


def far_pad(folder:Path): tokenizer(WORDS, pad_token="[PAD]").save_pretrained(folder)
def many_words(folder:Path): tokenizer(WORDS + 5).save_pretrained(folder)
def adapter(folder:Path): (folder / "adapter_config.json").write_text(json.dumps(dict(peft_type="LORA", base_model_name_or_path="x")))


def own_code(folder:Path):
    about = json.loads((folder / "config.json").read_text()) | dict(model_type="new", auto_map=dict(AutoModel="m.M", AutoModelForCausalLM="m.M"))
    (folder / "config.json").write_text(json.dumps(about))


def pad_in_config(folder:Path):
    about = json.loads((folder / "config.json").read_text()) | dict(pad_token_id=WORDS + 7)
    (folder / "config.json").write_text(json.dumps(about))


FAULTS = {"gptq": (lambda f: packed(f, "gptq"), "quant_method gptq"), "bitsandbytes": (lambda f: packed(f, "bitsandbytes"), "quant_method bitsandbytes"),
          "awq": (lambda f: packed(f, "awq"), "quant_method awq"), "peft": (adapter, "merge_and_unload"), "own code": (own_code, "never run here"),
          "pad": (far_pad, "pad token has the id 300"), "tokenizer": (many_words, "ids up to 304"), "pad in config": (pad_in_config, "cannot be loaded")}


@pytest.mark.parametrize("what", ["encoder", "decoder"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder(fault, what, tmp_path):
    "One `ModelError` that names the folder, and a next step."
    change, reason = FAULTS[fault]
    auto, family, load, field = (AutoModel, "bert", load_encoder, "modernbert_model") if what == "encoder" else (AutoModelForCausalLM, "llama", load_decoder, "gpt2_model")
    folder = saved(auto, family, SMALL, tmp_path / "x")
    change(folder)
    with pytest.raises(ModelError, match=reason) as e: load(settings(**{field: str(folder)}))
    assert str(folder) in str(e.value)


def test_a_decoder_with_too_few_positions(tmp_path):
    folder = saved(AutoModelForCausalLM, "gpt2", GPT | dict(n_positions=32), tmp_path / "x")
    with pytest.raises(ModelError, match="has 32 positions, but prefix_len=6.*needs 33"): load_decoder(settings(gpt2_model=str(folder), max_generation_length=25))
    load_decoder(settings(gpt2_model=str(folder), max_generation_length=24))


def test_a_checkpoint_without_a_pooler(tmp_path):
    "RoBERTa's masked language model has none, and nobody here uses one; other missing weights are still told."
    from transformers import AutoModelForMaskedLM
    folder = saved(AutoModelForMaskedLM, "roberta", ENCODERS["roberta"], tmp_path / "x")
    load_encoder(settings(modernbert_model=str(folder)))
    from safetensors.torch import load_file, save_file
    weights = load_file(folder / "model.safetensors")
    lost = next(k for k in weights if "layer.0" in k)
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", metadata=dict(format="pt"))
    with pytest.raises(ModelError, match="lacks 1 of its weights"): load_encoder(settings(modernbert_model=str(folder)))


def test_a_sentence_transformers_folder(tmp_path):
    "Also one that keeps its transformer in a folder of its own."
    plain = saved(AutoModel, "bert", SMALL, tmp_path / "st" / "0_Transformer")
    (tmp_path / "st" / "modules.json").write_text(json.dumps([dict(idx=0, name="0", path="0_Transformer", type="sentence_transformers.models.Transformer"),
                                                              dict(idx=1, name="1", path="1_Pooling", type="sentence_transformers.models.Pooling")]))
    found, wanted = (load_encoder(settings(modernbert_model=str(f))) for f in (tmp_path / "st", plain))
    assert found.identity["revision"] == wanted.identity["revision"]


def test_a_kernel_that_a_model_lacks_is_told_once(tmp_path, capsys):
    folder = saved(AutoModel, "deberta-v2", ENCODERS["deberta-v2"], tmp_path / "x")
    for _ in range(2): load_encoder(settings(modernbert_model=str(folder)))
    assert load_encoder(settings(modernbert_model=str(folder))).model.config._attn_implementation == "eager"
    said = "".join(capsys.readouterr())
    assert said.count("using eager") <= 1 # once in a process
