# bench/figures/sync_vs_round_robin.py: tokens/s of the synchronous schedule against the paper's round robin, four
# parties, every connection through a proxy of 10 ms one way and 100 Mbit/s each direction.
# needs: pcmoe link_proxy
import sys

import federation
import lib

MODEL = federation.olmoe(hidden=64, expert_width=128, layers=2, heads=4, experts=8, top_k=2)
TRAINING = {"max_steps": 12, "sequence_length": 128, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
LINK = (10, 100)


def side(schedule):
    return lambda: federation.tokens_per_s(
        federation.federation(MODEL, TRAINING, settings={"schedule": schedule}, link=LINK)[0])


results = lib.alternate({"synchronous": side("synchronous"), "round_robin": side("round_robin")})
middle = lib.medians(results)
lib.table(["schedule", "tokens/s (median)"], [[k, f"{v:.0f}"] for k, v in middle.items()])
sys.exit(lib.report("sync_vs_round_robin", middle["synchronous"] / middle["round_robin"], 2.5,
                    "x tokens/s", {"runs": results, "one_way_ms": LINK[0], "mbit": LINK[1],
                                   "model": MODEL, "machine": lib.machine()}))
