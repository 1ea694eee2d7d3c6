# bench/figures/export_loads.py: transformers loads what every party exports, whole, and gets the same logits.
# needs: pcmoe
"""For each family, a small random model as transformers saves it is the checkpoint that a four-party sim starts
from; it trains a few steps and exports at its end. Then all parties run `pcmoe export` once more, in shards and
with the logits of seeded random tokens; both exports must be alike. transformers loads each party's folder:
no key missing, unexpected or of another shape, and fp32 logits within 1e-5 of the largest."""
import os
import pathlib
import subprocess
import sys
import tempfile

import federation
import lib

sys.path.insert(0, str(lib.ROOT / "tests/parity"))
FAMILIES = ["olmoe", "mixtral", "qwen2_moe", "qwen3_moe"]
TOLERANCE = 1e-5
STEPS = 4
ORACLE = lib.ROOT / "tests/parity/export_oracle.py"
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", GOMP_SPINCOUNT="1000")


def make_models(folder):
    """One checkpoint a family; the vocabulary is the tokenizer's."""
    import families
    families._SIZES["vocab_size"] = 2048
    for family in FAMILIES:
        families.make_model(family, seed=1).save_pretrained(folder / family)


def train(folder, family):
    """The sim's folder; every party has exported at the end of its run."""
    data = federation.demo_data()
    config = folder / f"{family}.toml"
    config.write_text(federation.to_toml({
        "model": {"model_name_or_path": str(folder / family),
                  "tokenizer": str(data / "tokenizer.json")},
        "data": {"train": str(data / "{party}" / "train.jsonl")},
        "training": {"max_steps": STEPS, "sequence_length": 64, "per_device_train_batch_size": 2,
                     "learning_rate": 1e-3},
        "federation": {"exchange": "weights"}, "run": {"on_peer_loss": "stop"}}))
    subprocess.run([federation.PCMOE, "sim", "-n", "4", "--config", config, "--out",
                    folder / f"{family}-sim", "--export", "--json"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
                   timeout=federation.DEADLINE_S)
    return folder / f"{family}-sim"


def export_again(sim):
    """The same by a command of its own, once the run is over."""
    processes = [subprocess.Popen(
        [federation.PCMOE, "export", "--config", sim / party / "party.toml", "--out",
         sim / party / "shards", "--logits", sim / f"{party}.logits", "--max-shard-size", "200KB"],
        stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) for party in federation.PARTIES]
    for process in processes:
        _, said = process.communicate(timeout=federation.DEADLINE_S)
        if process.returncode != 0:
            raise RuntimeError(said.splitlines()[-1])


def same_weights(one, other):
    import safetensors.torch
    import torch
    both = []
    for folder in (one, other):
        tensors = {}
        for path in folder.glob("*.safetensors"):
            tensors |= safetensors.torch.load_file(path)
        both.append(tensors)
    return both[0].keys() == both[1].keys() and all(
        torch.equal(tensor, both[1][name]) for name, tensor in both[0].items())


def check(folder, family):
    """What came out for a family: keys that do not fit, and the largest difference of logits."""
    sim = train(folder, family)
    export_again(sim)
    keys, pairs = [], []
    for party in federation.PARTIES:
        if not same_weights(sim / party / "export", sim / party / "shards"):
            keys.append(f"{party}: the two exports differ")
        for name in ("export", "shards"):
            pairs += [sim / party / name, sim / f"{party}.logits"]
    told = lib.run_json([lib.PYTHON, ORACLE, *pairs], env=ENVIRONMENT)
    keys += [f"{model['model_type']}: {key}" for model in told for key in model["keys"]]
    largest = max(model["difference"] for model in told)
    types = {model["model_type"] for model in told}
    return {"keys": keys, "largest_difference": largest, "models": len(told),
            "pass": not keys and largest <= TOLERANCE and types == {family} and
                    len(told) == 2 * len(federation.PARTIES)}


def main():
    federation.PCMOE = lib.binary("pcmoe")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_models(folder)
        detail = {family: check(folder, family) for family in FAMILIES}
    lib.table(["family", "exports loaded", "keys that do not fit", "largest difference of logits"],
              [[family, found["models"], len(found["keys"]), f"{found['largest_difference']:.1e}"]
               for family, found in detail.items()])
    value = sum(found["pass"] for found in detail.values())
    return lib.report("export_loads", value, len(FAMILIES), "families", detail)


if __name__ == "__main__":
    sys.exit(main())
