# bench/figures/audit_weights.py: the same attacker against `weights`, private and aggregated backbone.
# needs: pcmoe
"""Mark: no attack on tokens or labels is more than half a point above the unigram, with at least 4,096
tokens a party and step. Membership by alignment and word presence are reported as they are."""
import sys

import audit_setup
import federation
import lib


def main():
    federation.PCMOE = lib.binary("pcmoe")
    options = audit_setup.parser(__doc__).parse_args()
    worst, detail = -1.0, {}
    for name, modes in {"private": "private", "aggregated": "aggregated"}.items():
        run = audit_setup.private_run(options, f"weights_{name}", "weights", batch=32, steps=3,
                                      learning_rate=2e-4, backbone=modes, embedding=modes,
                                      head=modes)
        report = audit_setup.audit(options, run, "--html", options.work / f"weights_{name}.html")
        audit_setup.show(report)
        for finding in report["findings"]:
            if finding["target"] in ("tokens", "labels"):
                worst = max(worst, finding["value"] - finding["baselines"]["unigram"])
            else:
                detail[f"{name}_{finding['id']}"] = [round(finding[k], 3)
                                                     for k in ("value", "low", "high")]
    return lib.report("audit_weights", worst, 0.005, "top-1 above unigram", detail, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
