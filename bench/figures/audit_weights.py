# bench/figures/audit_weights.py: the same attacker against `weights`: private and aggregated backbone, several sizes.
# needs: pcmoe
"""Marks: with at least 4,096 tokens a party and step, no attack on tokens or labels is more than half a point above
the unigram; with 8,192, row matching, counts, routing and sizes find nothing: all their intervals hold a half, at 95 %
for all of them together (each of m intervals at 1 - 0.05 / m, Bonferroni: of eight intervals at 95 % each, one would
leave out a half by chance in every third run). Every interval at 95 % is in the detail, with how many standard
errors it is from a half and whether it holds it; smaller steps, too: row matching on sums sees what alignment sees,
and both fade as a step gets larger. Membership by alignment against the tokens in the sum, word presence and the
final model are reported as they are. Sizes are sequences a party and step. The smallest run is the longest: its final
model has learned most."""
import shutil
import statistics
import sys

import audit_setup
import federation
import lib

# sequences a party and step -> steps
STEPS = {8: 24, 16: 4, 32: 3, 64: 3}
NOTHING = ("row_matching", "counts_batch", "routing_counts", "sizes_rows")
EMBEDDING_OWNER = "b"  # by this model's placement
TOGETHER = 0.05  # false alarms of all intervals at 8,192 tokens together


def finding(report, name):
    found = [f for f in report["findings"] if f["id"] == name]
    return found[0] if found else None


def numbers(found):
    return [round(found[k], 3) for k in ("value", "low", "high")]


def off_chance(found):
    """How many standard errors the AUC is from a half; 0 when it is a half exactly."""
    half_width = (found["high"] - found["low"]) / 2
    off = abs(found["value"] - 0.5)
    return 0.0 if off < 1e-9 else 1.96 * off / max(half_width, 1e-9)


def allowed_errors(intervals):
    """Standard errors from a half that one of so many intervals may be, so that all hold it at 1 - TOGETHER."""
    return statistics.NormalDist().inv_cdf(1 - TOGETHER / intervals / 2)


def one_run(options, mode, batch):
    name = f"weights_{mode}_{batch}"
    run = audit_setup.private_run(options, name, "weights", batch=batch, steps=STEPS[batch],
                                  learning_rate=2e-4, backbone=mode, embedding=mode, head=mode)
    report = audit_setup.audit(options, run, "--html", options.work / f"{name}.html")
    print(f"== {mode} backbone, {batch} sequences a party and step")
    audit_setup.show(report)
    if STEPS[batch] > 3:
        shutil.rmtree(run)  # what was received is large; audit_time takes the other
    return report


def words_by_owner(options):
    """Word presence from the embedding's sum, which only its owner sees: that party is the curious one here."""
    run = audit_setup.private_run(options, "weights_owner", "weights", batch=8, steps=1, learning_rate=2e-4,
                                  curious=EMBEDDING_OWNER, others="a,c,d", backbone="aggregated",
                                  embedding="aggregated", head="aggregated")
    found = finding(audit_setup.audit(options, run, coalition=EMBEDDING_OWNER), "words_embedding")
    if not found:
        sys.exit(f"audit_weights: party {EMBEDDING_OWNER} does not own the embedding any more; name who does")
    shutil.rmtree(run)
    return found


def main():
    federation.PCMOE = lib.binary("pcmoe")
    options = audit_setup.parser(__doc__).parse_args()
    worst, errors, large, holds, detail, curve = -1.0, {}, {}, {}, {}, {}
    for mode, batch in [("private", 64), ("aggregated", 8), ("aggregated", 16),
                        ("aggregated", 32), ("aggregated", 64)]:
        report = one_run(options, mode, batch)
        name = f"{mode}_{batch}"
        tokens = batch * audit_setup.SEQUENCE
        for found in report["findings"]:
            if found["target"] in ("tokens", "labels"):
                above = found["value"] - found["baselines"]["unigram"]
                worst = max(worst, above) if tokens >= 4096 else worst
                detail[f"{name}_{found['id']}_above_unigram"] = round(above, 4)
                continue
            detail[f"{name}_{found['id']}"] = numbers(found)
            if found["id"] in NOTHING:
                key = f"{name}_{found['id']}"
                errors[key] = round(off_chance(found), 2)
                holds[key] = found["low"] <= 0.5 <= found["high"]
                if tokens >= 8192:
                    large[key] = errors[key]
        aligned = finding(report, "membership_alignment")
        curve[name] = {key: round(value, 3) for key, value in aligned["more"].items()
                       if key.startswith("AUC at")}
        detail[f"{name}_seconds"] = report["seconds"]
    detail["owner_words_embedding"] = numbers(words_by_owner(options))
    allowed = allowed_errors(len(large))
    marks = {"tokens_and_labels": worst <= 0.005,
             "intervals_hold_half_at_8192": max(large.values()) <= allowed}
    return lib.report("audit_weights", worst, 0.005, "top-1 above unigram",
                      dict(detail, auc_at_tokens=curve, standard_errors_from_half=errors,
                           interval_holds_half=holds, intervals_at_8192=len(large),
                           allowed_standard_errors=round(allowed, 2), marks=marks), at_least=False)


if __name__ == "__main__":
    sys.exit(main())
