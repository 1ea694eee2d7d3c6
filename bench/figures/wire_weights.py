# bench/figures/wire_weights.py: bytes on the parties' sockets against the formula of DESIGN 3.3.
# needs: pcmoe
"""Every unit goes to the three other parties twice, in fp32, and a share of 4 bytes an element comes back from
each of them. Experts and blocks of the backbone are units (embedding and head are private); counted by hand
here. What passes the forwarders has TLS, HTTP/2, headers, exponents, keys, counts, votes and byes in it."""
import sys

import federation
import lib

HIDDEN, WIDTH, LAYERS, EXPERTS, STEPS = 256, 128, 4, 16, 4
MODEL = federation.olmoe(HIDDEN, WIDTH, LAYERS, 4, EXPERTS, 2)
TRAINING = {"max_steps": STEPS, "sequence_length": 128, "per_device_train_batch_size": 4,
            "save_steps": 0}


def main():
    federation.PCMOE = lib.binary("pcmoe")
    results, _, on_sockets = federation.federation(
        MODEL, TRAINING, "weights", {"embedding": "private", "head": "private"}, count_sockets=True)
    payload = sum(result["sent_bytes"] for result in results)
    # Query, key, value and output; four norms; the router.
    block = 4 * HIDDEN * HIDDEN + 4 * HIDDEN + EXPERTS * HIDDEN
    units = LAYERS * (EXPERTS * 3 * HIDDEN * WIDTH + block)
    others = len(federation.PARTIES) - 1
    formula = STEPS * units * others * (2 * 4 + 4)
    lib.table(["", "MB", "of the formula"],
              [["formula: units x 3 x (2 x 4 + 4) bytes a step", f"{formula / 1e6:.2f}", "1.0000"],
               ["sent by the channels", f"{payload / 1e6:.2f}", f"{payload / formula:.4f}"],
               ["on the sockets", f"{on_sockets / 1e6:.2f}", f"{on_sockets / formula:.4f}"]])
    return lib.report("wire_weights", on_sockets / formula, 1.02, "x", {
        "socket_bytes": on_sockets, "channel_bytes": payload, "formula_bytes": formula,
        "unit_elements": units, "steps": STEPS, "model": MODEL}, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
