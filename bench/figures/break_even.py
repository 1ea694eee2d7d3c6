# bench/figures/break_even.py: step times of both exchanges over a link of 50 ms there and back and 200 Mbit/s, against
# what `pcmoe plan` predicts, below, at and above the break-even that it prints.
# needs: pcmoe link_proxy
"""Four parties, OLMoE's proportions in small. Every connection passes link_proxy, 25 ms each way; the last party's
traffic shares one link of 200 Mbit/s each way, as the model has it for the busiest party. The model (pcmoe/plan/
weights_plan.h): rows takes the backbone's computing, then the larger of the experts' computing and bytes / bandwidth,
then 2 + 4 x layers one-way delays; weights takes the larger of all computing and bytes / bandwidth, then 7 one-way
delays. Bytes are plan's; the speed of computing that plan is given is that of `rows` between the same four processes
without the proxy. The value is the largest relative error of the predicted step times (medians of a run's steps, the
first left out)."""
import os
import statistics
import sys

import federation
import lib

MODEL = federation.olmoe(hidden=128, expert_width=64, layers=4, heads=4, experts=64, top_k=8)
SEQUENCE = 128
STEPS = int(os.environ.get("PCMOE_BENCH_STEPS", "7"))
ROUND_TRIP_MS, MBIT = 50, 200
SETTINGS = {"rows": {}, "weights": {"backbone": "private"}}


def step_s(exchange, batch, link):
    """The median step of a run of `batch` sequences a party."""
    training = {"max_steps": STEPS, "sequence_length": SEQUENCE, "per_device_train_batch_size": batch,
                "save_steps": 0}
    _, metrics = federation.federation(MODEL, training, exchange, SETTINGS[exchange], link=link)
    # Everybody waits for everybody: a step takes all parties as long.
    return statistics.median(line["step_s"] for lines in metrics for line in lines
                             if line.get("step", 0) > 1 and "step_s" in line)


def plan(batch, tokens_per_s):
    return federation.plan(MODEL, "--batch", batch, "--seq", SEQUENCE, "--mbit", MBIT, "--rtt-ms",
                           ROUND_TRIP_MS, "--tokens-per-s", tokens_per_s)


def main():
    federation.PCMOE, federation.PROXY = lib.binary("pcmoe"), lib.binary("link_proxy")
    link = (ROUND_TRIP_MS / 2, MBIT)
    speed = 8 * SEQUENCE / step_s("rows", 8, None)
    break_even = plan(8, speed)["weights_private"]["link_break_even_tokens"]
    middle = max(2, round(break_even / SEQUENCE))
    batches = [max(1, middle // 2), middle, 3 * middle // 2]
    sides = {}
    for exchange in SETTINGS:
        for batch in batches:
            sides[exchange, batch] = lambda e=exchange, b=batch: step_s(e, b, link)
    sides["speed", middle] = lambda: middle * SEQUENCE / step_s("rows", middle, None)
    measured = lib.medians(lib.alternate(
        {f"{kind} {batch * SEQUENCE}": side for (kind, batch), side in sides.items()}))
    speed = measured[f"speed {middle * SEQUENCE}"]
    rows, detail, worst = [], {}, 0.0
    for batch in batches:
        predicted = plan(batch, speed)
        for exchange, line in (("rows", "rows"), ("weights", "weights_private")):
            name = f"{exchange} {batch * SEQUENCE}"
            error = predicted[line]["step_s"] / measured[name] - 1
            worst = max(worst, abs(error))
            rows.append([name, f"{predicted[line]['step_s']:.3f}", f"{measured[name]:.3f}",
                         f"{100 * error:+.1f} %"])
            detail[name] = {"predicted_s": round(predicted[line]["step_s"], 4),
                            "measured_s": round(measured[name], 4), "error": round(error, 4)}
    lib.table(["exchange, tokens a party and step", "predicted s", "measured s", "error"], rows)
    return lib.report("break_even", worst, 0.15, "largest relative error", {
        "steps": detail, "break_even_tokens": round(
            plan(middle, speed)["weights_private"]["link_break_even_tokens"]),
        "tokens_per_s": round(speed), "rtt_ms": ROUND_TRIP_MS, "mbit": MBIT, "model": MODEL,
        "machine": lib.machine()}, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
