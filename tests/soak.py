"""The mini preset trained under faults for half an hour: killed, interrupted, stopped, with a full disk and a jumping clock, and resumed each time.

    python tests/soak.py [--minutes 30] [--seed N] [--rows 1000] [--out benchmarks/results/soak.json]      (make soak)

One run is left in peace. Then the same run is made again and again, cache included, with a fault at a random moment, until the time is over; each must
end with the same caches, and with the same models and last training state, to the last bit. The seed is printed and repeats the draws.
"""
import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import faults
from faults import FAULTS, GOES_ON, Clock, contents, environment, events, said, same, start, wrong_end

from latent_summ.train.checkpoint import load_checkpoint
from latent_summ.config import Config
from latent_summ.train.trainer import step_files


def config(folder:Path, rows:int) -> Config:
    "The mini preset with fewer rows, a checkpoint after every fifth step, and everything in one folder."
    few = {f"{s}_max_samples": rows for s in ("pretrain_middle", "pretrain_adapter", "finetune_adapter")}
    return Config.preset("mini").override(run_dir=str(folder / "run"), preprocess_cache_dir=str(folder / "cache"), messenger_rows=rows, max_eval_samples=64, save_every=5,
                                          **few)


def results(cfg:Config) -> dict:
    "The finished models and the last training state."
    folder = Path(cfg.run_dir) / cfg.checkpoint_dir
    files = [*sorted(folder.glob("best_model*.pt")), step_files(folder)[-1]]
    return {p.name: load_checkpoint(p)[0] for p in files}


def moment(cfg:Config, p, known:int, draw:random.Random, until:float):
    "Wait for a random moment: often soon after this attempt has begun to work, now and then at any time from its start."
    if draw.random() < 0.85:
        while p.poll() is None and len(events(cfg.run_dir)) <= known and time.monotonic() < until: time.sleep(0.05)
    end = time.monotonic() + draw.uniform(0, 8)
    while p.poll() is None and time.monotonic() < min(end, until): time.sleep(0.02)


def attempt(cfg:Config, draw:random.Random, clock:Clock, until:float, tell) -> tuple: # (status, faults done)
    "One process, with faults until one ends it, or until it ends by itself."
    known, spoken, done = len(events(cfg.run_dir)), Path(cfg.run_dir + ".log").stat().st_size if Path(cfg.run_dir + ".log").exists() else 0, Counter()
    there = known or any((Path(cfg.run_dir) / cfg.checkpoint_dir).glob("*.pt"))
    kind, steps = "", 0
    p = start(cfg, *["--resume"][:bool(there)], env=environment(**clock.env))
    try:
        while p.poll() is None and time.monotonic() < until:
            moment(cfg, p, known, draw, until)
            if p.poll() is not None or time.monotonic() >= until: break
            kind = draw.choice(list(FAULTS))
            FAULTS[kind](p, draw, clock)
            done[kind] += 1
            steps = sum(e["event"] == "step" for e in events(cfg.run_dir))
            tell(f"{kind} after {steps} steps")
            if kind not in GOES_ON: break
        status = p.wait(600)
    finally:
        if p.poll() is None: p.kill(); p.wait()
    words = said(cfg, spoken)
    after = sum(e["event"] == "step" for e in events(cfg.run_dir)) - steps
    if status == 0 and kind in ("SIGTERM", "SIGINT", "SIGINT twice") and after > 1: raise SystemExit(f"BROKEN: went on for {after} steps after {kind}\n{words[-4000:]}")
    if problem := wrong_end(status, set(done), words): raise SystemExit(f"BROKEN: {problem}\n{words[-4000:]}")
    return status, done


def undisturbed(cfg:Config, tell) -> float:
    began = time.monotonic()
    if start(cfg).wait(): raise SystemExit(f"The undisturbed run failed:\n{said(cfg)[-4000:]}")
    steps = sum(e["event"] == "step" for e in events(cfg.run_dir))
    tell(f"left in peace: {steps} steps in {time.monotonic() - began:.0f} s")
    return steps


def round_of_faults(cfg:Config, draw:random.Random, clock:Clock, until:float, tell, found:dict) -> bool:
    "One run under faults, to its end, or to the end of the time; whether it ended."
    while time.monotonic() < until:
        status, done = attempt(cfg, draw, clock, until, tell)
        found["starts"] += 1
        found["faults"] += done
        if status == 0: return True
    return False


def soak(args, folder:Path) -> dict:
    began = time.monotonic()
    def tell(words): print(f"{time.monotonic() - began:7.1f} s  {words}", flush=True)
    peace = config(folder / "peace", args.rows)
    steps = undisturbed(peace, tell)
    want, want_cache = results(peace), contents(folder / "peace" / "cache")
    draw, until = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    found = dict(rounds=0, starts=0, faults=Counter(), left_behind=0)
    while time.monotonic() < until:
        here = folder / f"round-{found['rounds'] + 1}"
        cfg, clock = config(here, args.rows), Clock(here / "clock")
        over = not round_of_faults(cfg, draw, clock, until, tell, found)
        if over and start(cfg, "--resume", env=environment(**clock.env)).wait(): raise SystemExit(f"BROKEN: it does not end\n{said(cfg)[-4000:]}")
        got = results(cfg)
        wrong = [k for k in want if not same(want[k], got.get(k))] + [k for k, v in contents(here / "cache").items() if want_cache.get(k) != v]
        if wrong or want_cache.keys() - contents(here / "cache").keys(): raise SystemExit(f"BROKEN: seed {args.seed}, {here.name}: other bytes in {', '.join(wrong)}")
        extra = [p for p in Path(cfg.run_dir).rglob("*") if p.is_file() and not (folder / "peace" / "run" / p.relative_to(cfg.run_dir)).exists()]
        found["rounds"], found["left_behind"] = found["rounds"] + 1, found["left_behind"] + len(extra)
        tell(f"round {found['rounds']}: the same bits after {sum(found['faults'].values())} faults and {found['starts']} starts in all; {len(extra)} files left behind")
        if extra: tell(", ".join(p.name for p in extra))
        shutil.rmtree(here)
    return dict(found, faults=dict(sorted(found["faults"].items())), steps_in_a_run=steps, seconds=round(time.monotonic() - began))


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--minutes", type=float, default=30)
    ap.add_argument("--seed", type=int, default=faults.SEED)
    ap.add_argument("--rows", type=int, default=1000)
    ap.add_argument("--out", type=Path)
    args = ap.parse_args()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="latent_summ-soak-") as folder: found = soak(args, Path(folder))
    record = dict(command=f"python tests/soak.py --minutes {args.minutes:g} --seed {args.seed} --rows {args.rows}", minutes=args.minutes, seed=args.seed,
                  identical=True, faults_in_all=sum(found["faults"].values()), **found, python=platform.python_version(), machine=f"{platform.machine()}, one thread")
    print(json.dumps(record, indent=2))
    if args.out: args.out.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__": sys.exit(main())
