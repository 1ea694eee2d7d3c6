# bench/figures/wire_rows.py: bytes on the parties' sockets against 4 x rows x width x bytes (DESIGN 3.2).
# needs: pcmoe
"""Every party is dialled through a forwarder, which counts what passes in both directions: TLS,
HTTP/2, message headers, expert ids and gate weights, padding of the row counts, votes and byes, all in.
Rows are the distinct (token, remote owner) pairs that the parties report in metrics.jsonl."""
import itertools
import sys

import federation
import lib

HIDDEN, STEPS = 512, 8
MODEL = federation.olmoe(HIDDEN, 64, 2, 8, 8, 2)
TRAINING = {"max_steps": STEPS, "sequence_length": 128, "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2, "save_steps": 0}


def main():
    federation.PCMOE = lib.binary("pcmoe")
    results, metrics, on_sockets = federation.federation(MODEL, TRAINING, count_sockets=True)
    payload = sum(result["sent_bytes"] for result in results)
    rows = sum(line.get("rows_sent", 0) for line in itertools.chain(*metrics))
    formula = 4 * rows * HIDDEN * 4
    tokens = (TRAINING["sequence_length"] * TRAINING["per_device_train_batch_size"] *
              TRAINING["gradient_accumulation_steps"] * STEPS * len(federation.PARTIES))
    owners = rows / (tokens * MODEL["num_hidden_layers"])
    lib.table(["", "MB", "of the formula"],
              [["formula: 4 x rows x D x 4 bytes", f"{formula / 1e6:.2f}", "1.0000"],
               ["sent by the channels", f"{payload / 1e6:.2f}", f"{payload / formula:.4f}"],
               ["on the sockets", f"{on_sockets / 1e6:.2f}", f"{on_sockets / formula:.4f}"]])
    return lib.report("wire_rows", on_sockets / formula, 1.02, "x", {
        "socket_bytes": on_sockets, "channel_bytes": payload, "formula_bytes": formula, "rows": rows,
        "remote_owners_a_token": round(owners, 4), "steps": STEPS}, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
