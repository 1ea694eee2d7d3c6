# bench/figures/audit_time.py: seconds that the whole audit of the small model takes on two cores.
# needs: pcmoe
"""Both audits, of a `rows` run and of a `weights` run; training the base and the runs not counted. On a busy
machine compare the processor seconds, too."""
import resource
import sys
import time

import audit_setup
import federation
import lib


def main():
    federation.PCMOE = lib.binary("pcmoe")
    options = audit_setup.parser(__doc__).parse_args()
    seconds, cpu = {}, {}
    aggregated = dict(backbone="aggregated", embedding="aggregated", head="aggregated")
    for name, run in {
            "rows": audit_setup.private_run(options, "rows", "rows", 8, 24, 2e-4, reuse=True),
            "weights": audit_setup.private_run(options, "weights_aggregated_32", "weights", 32, 3,
                                               2e-4, reuse=True, **aggregated)}.items():
        begin, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        audit_setup.audit(options, run)
        seconds[name] = round(time.monotonic() - begin, 1)
        cpu[f"{name}_cpu"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used, 1)
    return lib.report("audit_time", sum(seconds.values()), 600, "s",
                      dict(seconds, **cpu, machine=lib.machine()), at_least=False)


if __name__ == "__main__":
    sys.exit(main())
