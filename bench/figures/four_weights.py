# bench/figures/four_weights.py: total tokens/s of four parties (weights, one thread each, 16,384 tokens a party and
# step) on this machine against one central run with as many threads in total.
# needs: pcmoe
"""The model is that of four_rows.py: OLMoE's shape, experts wider than the hidden width as in Mixtral. The backbone
is aggregated, embedding and head private, as a run from scratch has it. Both sides recompute activations: the
central run has 65,536 tokens in one step."""
import os
import sys

import federation
import lib

MODEL = federation.olmoe(hidden=256, expert_width=896, layers=4, heads=4, experts=16, top_k=2)
# The first step warms up and is not in the speed.
STEPS = int(os.environ.get("PCMOE_BENCH_STEPS", "3"))
TRAINING = {"max_steps": STEPS, "sequence_length": 256, "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 8, "learning_rate": 1e-3, "gradient_checkpointing": True,
            "save_steps": 0}
FOUR, CENTRAL = "four parties, 1 thread each", "central, 4 threads"


def main():
    federation.PCMOE = lib.binary("pcmoe")
    results = lib.alternate({
        FOUR: lambda: federation.tokens_per_s(
            federation.federation(MODEL, TRAINING, "weights")[0]),
        CENTRAL: lambda: federation.central(MODEL, TRAINING, 4)["tokens_per_s"],
        "central, 2 threads": lambda: federation.central(MODEL, TRAINING, 2)["tokens_per_s"]})
    middle = lib.medians(results)
    lib.table(["side", "tokens/s (median)"], [[k, f"{v:.0f}"] for k, v in middle.items()])
    return lib.report("four_weights", middle[FOUR] / middle[CENTRAL], 0.8, "x tokens/s", {
        "runs": results, "precision": "fp32", "model": MODEL, "training": TRAINING,
        "against_two_threads": round(middle[FOUR] / middle["central, 2 threads"], 4),
        "machine": lib.machine()})


if __name__ == "__main__":
    sys.exit(main())
