# bench/figures/audit_rows.py: what one curious party of four reads out of a `rows` run.
# needs: pcmoe
"""Marks: row decoder >= 90 % of rows seen, >= 85 % of all private tokens; routing only >= 35 %;
labels >= 50 %; the permuted control within one point of the unigram. The attacks must work."""
import sys

import audit_setup
import federation
import lib


def main():
    federation.PCMOE = lib.binary("pcmoe")
    options = audit_setup.parser(__doc__).parse_args()
    run = audit_setup.private_run(options, "rows", "rows", batch=8, steps=24, learning_rate=2e-4)
    report = audit_setup.audit(options, run, "--html", options.work / "rows.html")
    audit_setup.show(report)
    value = {name: audit_setup.value(report, name)
             for name in ("row_decoder", "row_decoder_all", "routing_ids", "routing_weights",
                          "sequence_decoder_all", "labels_closed_form", "labels_learned",
                          "row_control", "membership_rows", "known_plaintext_1000",
                          "known_plaintext_5000", "known_plaintext_20000", "final_membership",
                          "final_extraction")}
    control = [f for f in report["findings"] if f["id"] == "row_control"][0]
    off = abs(control["value"] - control["baselines"]["unigram"])
    would_notice = control["more"]["same training, rows not shuffled"]
    marks = {"row_decoder_all": value["row_decoder_all"] >= 0.85,
             "routing": max(value["routing_ids"], value["routing_weights"]) >= 0.35,
             "labels": max(value["labels_closed_form"], value["labels_learned"]) >= 0.5,
             "control": off <= 0.01 and would_notice >= 0.2}
    return lib.report("audit_rows", value["row_decoder"], 0.9, "top-1 of rows seen",
                      dict(value, control_off_unigram=round(off, 4),
                           control_not_shuffled=round(would_notice, 4), marks=marks))


if __name__ == "__main__":
    sys.exit(main())
