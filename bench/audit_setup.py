# bench/audit_setup.py: what the audit's figures attack: a small public base, and a recorded private run.
"""Trains a small base on public text, then lets four parties fine-tune it on text of their own while
one of them records what it receives and the others keep their tokens for scoring. The text is the
demo's (the King James Bible): party a's books play the public corpus, and a is the curious party; b,
c and d have other books. Another recipe can be given: --public FILE --private "DIR/{party}/train.jsonl"."""
import argparse
import os
import pathlib
import shutil
import subprocess

import federation
import lib

MODEL = federation.olmoe(hidden=128, expert_width=128, layers=6, heads=4, experts=16, top_k=2)
BASE_STEPS, BASE_BATCH = 400, 32
SEQUENCE = 128
DEADLINE_S = 3600


def _environment(threads):
    return dict(os.environ, OMP_NUM_THREADS=str(threads), GOMP_SPINCOUNT="1000")


def parser(description):
    arguments = argparse.ArgumentParser(description=description)
    data = federation.ROOT / "demo/data"
    arguments.add_argument("--public", default=str(data / "a/train.jsonl"))
    arguments.add_argument("--private", default=str(data / "{party}/train.jsonl"))
    arguments.add_argument("--work", type=pathlib.Path, default=lib.BUILD / "audit",
                           help="folder for base and runs; a base that is there is used again")
    return arguments


def base(options):
    """The folder of the public base, trained once."""
    data = federation.demo_data()
    folder = options.work / "base"
    if (folder / "model.safetensors").exists():
        return folder
    options.work.mkdir(parents=True, exist_ok=True)
    scratch = options.work / "base_run"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    (scratch / "config.json").write_text(lib.json.dumps(MODEL))
    (scratch / "run.toml").write_text(federation.to_toml({
        "model": {"model_name_or_path": "config.json", "tokenizer": str(data / "tokenizer.json")},
        "data": {"train": [options.public]},
        "training": {"learning_rate": 3e-3, "lr_scheduler_type": "cosine", "warmup_steps": 20,
                     "max_steps": BASE_STEPS, "sequence_length": SEQUENCE,
                     "per_device_train_batch_size": BASE_BATCH, "seed": 1, "num_threads": 2,
                     "logging_steps": 50},
        "run": {"identity": "none", "output_dir": "out"}}))
    subprocess.run([federation.PCMOE, "train", "--config", scratch / "run.toml"], check=True,
                   env=_environment(2), timeout=DEADLINE_S)
    checkpoint = scratch / f"out/checkpoint-{BASE_STEPS}"
    partial = options.work / "base.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint / name, partial / name)
    partial.rename(folder)
    return folder


def private_run(options, name, exchange, batch, steps, learning_rate, reuse=False,
                curious="a", others="b,c,d", **federation_keys):
    """The folder of a recorded run of four parties that starts from the base: what the curious receive, and what
    the others' tokens were. With `reuse`, one of the same settings that is there will do."""
    data = federation.demo_data()
    start = base(options)
    config = options.work / f"{name}.toml"
    config.write_text(federation.to_toml({
        "model": {"model_name_or_path": str(start), "tokenizer": str(data / "tokenizer.json")},
        "data": {"train": [options.private]},
        "training": {"learning_rate": learning_rate, "max_steps": steps,
                     "sequence_length": SEQUENCE, "per_device_train_batch_size": 8,
                     "gradient_accumulation_steps": max(1, batch // 8), "seed": 1,
                     "num_threads": 1},
        "federation": dict(exchange=exchange, **federation_keys),
        "border": {"allow_readable_rows": exchange == "rows", "record_received": curious,
                   "record_truth": others},
        "run": {"on_peer_loss": "stop"}}))
    out = options.work / name
    done = out / "recorded_with.toml"
    if reuse and done.exists() and done.read_text() == config.read_text():
        return out
    subprocess.run([federation.PCMOE, "sim", "-n", "4", "--config", config, "--out", out,
                    "--replace"], check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE_S)
    shutil.copy(config, done)
    return out


def audit(options, run, *more, coalition="a"):
    """The report of `pcmoe audit` by a party."""
    return lib.run_json([federation.PCMOE, "audit", "--run", run, "--coalition", coalition, "--base",
                         base(options), "--shadow", options.public, "--json", "--threads", "2",
                         *more], env=_environment(2), timeout=DEADLINE_S)


def value(report, name):
    """Of an attack; 0 when it did not run."""
    found = [finding for finding in report["findings"] if finding["id"] == name]
    return found[0]["value"] if found else 0.0


def show(report):
    lib.table(["attack", "metric", "value", "low", "high", "best baseline"],
              [[f["title"], f["metric"], f"{f['value']:.3f}", f"{f['low']:.3f}", f"{f['high']:.3f}",
                f"{max(f['baselines'].values(), default=0):.3f}"] for f in report["findings"]])
