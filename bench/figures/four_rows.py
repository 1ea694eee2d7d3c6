# bench/figures/four_rows.py: total tokens/s of four parties (rows, synchronous, one thread each) on this machine
# against one central run with as many threads in total.
# needs: pcmoe
import sys

import federation
import lib

# OLMoE's shape, smaller; experts as wide as the model is large, as in Mixtral, are cheaper to send to.
MODEL = federation.olmoe(hidden=256, expert_width=896, layers=4, heads=4, experts=16, top_k=2)
TRAINING = {"max_steps": 8, "sequence_length": 256, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
PRECISION = sys.argv[1] if len(sys.argv) > 1 else "fp32"


def four():
    return federation.tokens_per_s(federation.federation(
        MODEL, dict(TRAINING, precision=PRECISION))[0])


def one(threads):
    return lambda: federation.central(MODEL, dict(TRAINING, precision=PRECISION),
                                      threads)["tokens_per_s"]


results = lib.alternate({"four parties, 1 thread each": four, "central, 4 threads": one(4),
                         "central, 2 threads": one(2)})
middle = lib.medians(results)
lib.table(["side", "tokens/s (median)"], [[k, f"{v:.0f}"] for k, v in middle.items()])
value = middle["four parties, 1 thread each"] / middle["central, 4 threads"]
sys.exit(lib.report("four_rows", value, 0.8, "x tokens/s", {
    "runs": results, "precision": PRECISION, "model": MODEL, "against_two_threads": round(
        middle["four parties, 1 thread each"] / middle["central, 2 threads"], 4),
    "machine": lib.machine()}))
