"""Would drafts from the chat make greedy decoding faster? How many tokens of a summary are found by looking up its last words in its source.

    python benchmarks/drafts.py                          to benchmarks/results/drafts.json: the mini pair on held-out built-in chats
    python benchmarks/drafts.py --run-dir a/run --rows-file chats.jsonl --name samsum   another run, other chats; --device cpu

Prompt lookup: the last one to three tokens are looked for in the source's tokens, and what follows there is the draft; one forward pass checks all of it.
The output is the greedy one by construction, so the passes can be counted on summaries that were written without drafts.

- tokens_per_pass: tokens written per forward pass with drafts of so many tokens (1 is what decoding without drafts has)
- pass_cost: seconds of a pass over a draft and one token more, over those of a pass over one token, at batch 1 with a cache, in processor time
- times_as_fast: what the two make together; a pass without a draft costs 1
"""
import copy
import json
from pathlib import Path

import numpy as np
import torch
from _common import RESULTS, machine, options, parse, timed
from latent_summ.config import Config
from latent_summ.data.sources import load_pairs
from latent_summ.model.decode import prompt_embeds
from latent_summ.runtime import write_json
from latent_summ.use.inference import Summarizer

LENGTHS = (2, 4, 8)  # tokens in a draft
NGRAM = 3  # at most


def draft(source:list, written:list, length:int) -> list:
    "The tokens that follow the last words in the source, at their first place there; the longest match counts."
    for n in range(min(NGRAM, len(written)), 0, -1):
        for i in range(len(source) - n):
            if source[i:i + n] == written[-n:]: return source[i + n:i + n + length]
    return []


def passes(source:list, target:list, length:int) -> tuple: # (passes without a draft, with one, tokens that were accepted from drafts)
    plain = drafted = accepted = position = 0
    while position < len(target):
        guess = draft(source, target[:position], length)
        right = 0
        while right < len(guess) and position + right < len(target) and guess[right] == target[position + right]: right += 1
        position += right + 1
        accepted += right
        plain += not guess
        drafted += bool(guess)
    return plain, drafted, accepted


def pass_costs(s:Summarizer, latents:torch.Tensor) -> dict: # draft length -> times a pass over one token
    "Median over rounds in turns."
    model = s.decoder.model
    with torch.inference_mode():
        prompt = prompt_embeds(s.decoder, s._prefix(latents[:1]))
        cache = model(inputs_embeds=prompt, use_cache=True).past_key_values
        def one(tokens):
            ids = torch.full((1, tokens), 7)
            own = copy.deepcopy(cache)
            return timed(lambda: model(input_ids=ids, past_key_values=own))[1]
        runs = [[one(n + 1) for n in (0, *LENGTHS)] for _ in range(12)][2:]
    return {n: float(np.median([r[i + 1] / r[0] for r in runs])) for i, n in enumerate(LENGTHS)}


def rows_of(opts) -> list:
    if opts.rows_file: return [json.loads(line) for line in opts.rows_file.read_text().splitlines()][:opts.rows]
    return [dict(load_pairs(Config.preset("mini"), "test")[i]) for i in range(opts.rows)]


def bench(opts) -> dict:
    s = Summarizer.from_pretrained(opts.run_dir or "mini", device=opts.device, do_sample=False)
    rows = rows_of(opts)
    texts = s.summarize([r["dialogue"] for r in rows])
    ids_of = lambda text: s.decoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    # a word has other ids at the start of a line than behind a space
    pairs = [(ids_of(" ".join(r["dialogue"].split())), ids_of(text) + [s.decoder.eos_id]) for r, text in zip(rows, texts)]
    costs = pass_costs(s, s.encode([rows[0]["dialogue"]]))
    out = {}
    for length in LENGTHS:
        plain, drafted, accepted = np.sum([passes(*p, length) for p in pairs], 0).tolist()
        tokens = sum(len(target) for _, target in pairs)
        out[str(length)] = dict(tokens_per_pass=round(tokens / (plain + drafted), 3), drafts_per_pass=round(drafted / (plain + drafted), 3),
                                accepted_per_draft=round(accepted / max(drafted, 1), 3), pass_cost=round(costs[length], 3),
                                times_as_fast=round(tokens / (plain + drafted * costs[length]), 3))
    return dict(rows=len(rows), tokens=tokens, decoder=f"{type(s.decoder.model).__name__}, {str(s.decoder.model.dtype).removeprefix('torch.')}", by_draft_tokens=out)


def main():
    p = options(__doc__, ("drafts",))
    p.add_argument("--run-dir", type=Path, help="a trained run (default: the built-in demo model)")
    p.add_argument("--rows-file", type=Path, help="jsonl with a dialogue in each line (default: held-out built-in chats)")
    p.add_argument("--rows", type=int, default=40)
    p.add_argument("--name", default="mini", help="under which the results file keeps it")
    opts = parse(p)
    if opts.toy: opts.rows = 4
    where = f" --run-dir RUN --rows-file {opts.rows_file.name if opts.rows_file else 'ROWS'}" if opts.run_dir else ""
    result = dict(command=f"python benchmarks/drafts.py --name {opts.name} --rows {opts.rows}{where} --threads {opts.threads}", machine=machine(opts.device)) | bench(opts)
    print(json.dumps(result, indent=1))
    if opts.toy: return
    path = opts.output or RESULTS / "drafts.json"
    write_json(path, (json.loads(path.read_text()) if path.exists() else {}) | {opts.name: result})


if __name__ == "__main__": main()
