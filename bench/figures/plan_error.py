# bench/figures/plan_error.py: the peak that `pcmoe plan` predicts against the one that the allocator measured.
# needs: pcmoe
import json
import pathlib
import sys
import tempfile

import federation
import lib

SMALL = federation.olmoe(128, 128, 4, 4, 8, 2)
WIDE = federation.olmoe(256, 512, 2, 4, 8, 2)
DEEP = dict(federation.olmoe(128, 64, 8, 8, 16, 4), num_key_value_heads=2)
# name, model, parties, precision, recompute, batch, sequence, micro-batches
CONFIGURATIONS = [
    ("central fp32, long sequences", SMALL, 1, "fp32", False, 4, 256, 2),
    ("central bf16, recompute, grouped heads", DEEP, 1, "bf16", True, 8, 128, 4),
    ("party of 4, fp32", WIDE, 4, "fp32", False, 4, 128, 2),
    ("party of 4, bf16, recompute, grouped heads", DEEP, 4, "bf16", True, 8, 128, 2),
]


def predicted(model, parties, precision, recompute, batch, sequence, micro_batches):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "config.json"
        path.write_text(json.dumps(model))
        command = [federation.PCMOE, "plan", path, "-n", parties, "--precision", precision, "--batch",
                   batch, "--seq", sequence, "--micro-batches", micro_batches,
                   "--eval-micro-batches", 0, "--json"] + (["--recompute"] if recompute else [])
        return lib.run_json(command)["rows"]["party"]


def measured(model, parties, precision, recompute, batch, sequence, micro_batches):
    """The largest party's peak: they differ, since the router does not spread tokens evenly."""
    training = {"max_steps": 3, "precision": precision, "gradient_checkpointing": recompute,
                "per_device_train_batch_size": batch, "sequence_length": sequence,
                "gradient_accumulation_steps": micro_batches, "save_steps": 0}
    if parties == 1:
        # A central run reads four files: the sequences of a step come from all of them.
        return federation.central(model, training, 1), 4
    results, _ = federation.federation(model, training)
    return max(results, key=lambda result: result["peak_allocated_bytes"]), 1


def main():
    federation.PCMOE = lib.binary("pcmoe")
    rows, detail, worst = [], {}, 0.0
    for name, model, parties, *recipe in CONFIGURATIONS:
        result, files = measured(model, parties, *recipe)
        recipe[-1] *= files
        plan = predicted(model, parties, *recipe)
        error = plan["peak_allocated_bytes"] / result["peak_allocated_bytes"] - 1
        worst = max(worst, abs(error))
        rows.append([name, f"{plan['peak_allocated_bytes'] / 1e6:.1f}",
                     f"{result['peak_allocated_bytes'] / 1e6:.1f}",
                     f"{result['states_bytes'] / 1e6:.1f}", f"{100 * error:+.1f} %"])
        detail[name] = {"predicted_bytes": round(plan["peak_allocated_bytes"]),
                        "measured_bytes": result["peak_allocated_bytes"],
                        "predicted_states_bytes": round(plan["states_bytes"]),
                        "measured_states_bytes": result["states_bytes"], "error": round(error, 4)}
    lib.table(["configuration", "predicted MB", "measured MB", "of it states", "error"], rows)
    return lib.report("plan_error", worst, 0.10, "largest relative error", detail, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
