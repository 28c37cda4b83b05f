"""How long the command takes to answer, from a cold process: each round starts every process once, in turn.

    python benchmarks/startup.py             to benchmarks/results/startup.json
    python benchmarks/startup.py --full      more rounds

- help: what does not need torch, beside `import torch`
- first: `doctor` and a first summary (the small pair, untrained: 24 words each), beside transformers alone that loads the same encoder and decoder, encodes
  the same text, and writes as many words
"""
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import HERE, options, parse, run_parts, spread

ROOT, WORDS = HERE.parent, 24
HELP = {
    "python -c pass": ["-c", "pass"],
    "import latent_summ.config": ["-c", "import latent_summ.config"],
    "latent_summ --help": ["-m", "latent_summ", "--help"],
    "latent_summ train --help": ["-m", "latent_summ", "train", "--help"],
    "latent_summ config diff --preset mini": ["-m", "latent_summ", "config", "diff", "--preset", "mini"],
    "import torch": ["-c", "import torch"],
    "import torch, transformers": ["-c", "import torch, transformers; transformers.AutoModel"],
}
CHAT = "Anna: can you lend me your tent? Ben: sure, pick it up on Friday"
ALONE = f"""
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from latent_summ.encode.backbones import MINI
x = AutoTokenizer.from_pretrained(MINI / "encoder")({CHAT!r}, return_tensors="pt")
with torch.inference_mode(): AutoModel.from_pretrained(MINI / "encoder", dtype=torch.float32)(input_ids=x["input_ids"], attention_mask=x["attention_mask"])
tokenizer, decoder = AutoTokenizer.from_pretrained(MINI / "decoder"), AutoModelForCausalLM.from_pretrained(MINI / "decoder", dtype=torch.float32)
ids = decoder.generate(inputs_embeds=torch.randn(1, 52, decoder.config.hidden_size), max_new_tokens={WORDS}, min_new_tokens={WORDS}, do_sample=False, pad_token_id=0)
print(tokenizer.batch_decode(ids))
"""


def seconds(words:list) -> float:
    "Wall time of one Python process. (`doctor` may end with a warning's status.)"
    start = time.perf_counter()
    p = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if p.returncode > 1: sys.exit(p.stderr)
    return time.perf_counter() - start


def measure(calls:dict, base:str, rounds:int) -> dict:
    for words in calls.values(): seconds(words)  # once, so that files are in the page cache and .pyc files are written
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, words in calls.items(): times[name].append(seconds(words))
    of_base = {name: spread([a / b for a, b in zip(t, times[base])]) for name, t in times.items()}
    return dict(base=base, seconds={name: spread(t) for name, t in times.items()}, of_base=of_base)


def untrained(folder:Path):
    "The small pair with fresh weights, as a model that `summarize` loads."
    from latent_summ.encode.backbones import load_decoder, load_encoder
    from latent_summ.config import Config
    from latent_summ.use.inference import Summarizer
    from latent_summ.model.model import LatentSummarizer
    cfg = Config.preset("mini").override(device="cpu", max_generation_length=WORDS, embedding_normalizer="none")
    encoder, decoder = load_encoder(cfg), load_decoder(cfg)
    Summarizer(cfg, LatentSummarizer(cfg, decoder.embedding_rms), encoder, decoder).save_pretrained(folder)


def bench_help(opts) -> dict: return measure(HELP, "import torch", opts.rounds or (15 if opts.full else 5))


def bench_first(opts) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        untrained(Path(folder) / "model")
        ours = ["-m", "latent_summ", "summarize", "--model", f"{folder}/model", CHAT]
        calls = {"import torch, transformers": HELP["import torch, transformers"], "latent_summ doctor --preset mini": ["-m", "latent_summ", "doctor", "--preset", "mini"],
                 "latent_summ summarize TEXT": ours, "transformers alone": ["-c", ALONE]}
        return measure(calls, "transformers alone", opts.rounds or (7 if opts.full else 3))


PARTS = dict(help=bench_help, first=bench_first)


def main():
    p = options(__doc__, PARTS)
    p.add_argument("--rounds", type=int, help="how often each process is started (default: 5 and 3, with --full 15 and 7)")
    run_parts(__file__, parse(p), PARTS)


if __name__ == "__main__": main()
