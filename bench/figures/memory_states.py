# bench/figures/memory_states.py: weights, gradients and optimizer state a party at four parties, against
# central: what the allocator holds after the run, on a model with OLMoE-1B-7B's proportions.
# needs: pcmoe
import sys

import federation
import lib

# As OLMoE-1B-7B: 64 experts, 8 a token, expert width half the hidden width, heads of 128; layers chosen so
# that the experts have its share of all parameters with the demo's small vocabulary.
MODEL = federation.olmoe(256, 128, 5, 2, 64, 8)
TRAINING = {"max_steps": 2, "sequence_length": 64, "per_device_train_batch_size": 2, "save_steps": 0}


def main():
    federation.PCMOE = lib.binary("pcmoe")
    central = federation.central(MODEL, TRAINING, 1)["states_bytes"]
    results, _ = federation.federation(MODEL, TRAINING)
    parties = [result["states_bytes"] for result in results]
    saved = 1 - max(parties) / central
    lib.table(["", "states MB"], [["central", f"{central / 1e6:.1f}"]] +
              [[f"party {name}", f"{value / 1e6:.1f}"]
               for name, value in zip(federation.PARTIES, parties)])
    return lib.report("memory_states", saved, 0.69, "fraction saved",
                      {"central_bytes": central, "party_bytes": parties, "recipe": "fp32, AdamW"})


if __name__ == "__main__":
    sys.exit(main())
