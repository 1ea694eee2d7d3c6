# bench/figures/memory_aggregated.py: states a party at four parties with everything aggregated, against central.
# needs: pcmoe
"""States are weights, gradients and moments, what the allocator holds after the run, and at a party also the
most bytes of others' weights and gradients that it held at a time. The model has the proportions of
Qwen3-30B-A3B (48 layers, 128 experts of which 8 a token, expert width 3/8 of the hidden width, queries twice as
wide and one key head to eight query heads) at a hidden width of 64 and with the demo's vocabulary. What waits
in queues (the next stage's weights, a stage's shares: `pcmoe plan`'s messages) is said besides."""
import sys

import federation
import lib

HIDDEN = 64
MODEL = {"model_type": "qwen3_moe", "vocab_size": 2048, "hidden_size": HIDDEN, "num_hidden_layers": 48,
         "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": HIDDEN // 4,
         "intermediate_size": 3 * HIDDEN, "moe_intermediate_size": 3 * HIDDEN // 8, "num_experts": 128,
         "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
         "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
         "norm_topk_prob": True, "router_aux_loss_coef": 0.001, "output_router_logits": False,
         "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02,
         "attention_bias": False, "use_sliding_window": False}
TRAINING = {"max_steps": 2, "sequence_length": 64, "per_device_train_batch_size": 2, "save_steps": 0}
# Four times the hidden width would ask for more rows than these few tokens give.
SETTINGS = {"backbone": "aggregated", "embedding": "aggregated", "head": "aggregated", "min_rows": 0}


def main():
    federation.PCMOE = lib.binary("pcmoe")
    central = federation.central(MODEL, TRAINING, 1)["states_bytes"]
    results, _ = federation.federation(MODEL, TRAINING, "weights", SETTINGS)
    parties = [result["states_bytes"] for result in results]
    plan = federation.plan(MODEL, "--batch", 2, "--seq", 64)["weights_aggregated"]["party"]
    queued = round(plan["message_bytes"])
    saved = 1 - max(parties) / central
    lib.table(["", "states MB", "of central"], [["central", f"{central / 1e6:.1f}", "1.0000"]] +
              [[f"party {name}", f"{value / 1e6:.1f}", f"{value / central:.4f}"]
               for name, value in zip(federation.PARTIES, parties)] +
              [["predicted", f"{plan['states_bytes'] / 1e6:.1f}",
                f"{plan['states_bytes'] / central:.4f}"],
               ["in queues", f"{queued / 1e6:.1f}", f"{queued / central:.4f}"]])
    return lib.report("memory_aggregated", saved, 0.73, "fraction saved",
                      {"central_bytes": central, "party_bytes": parties, "queued_bytes": queued,
                       "saved_with_queues": round(1 - (max(parties) + queued) / central, 4),
                       "predicted_bytes": round(plan["states_bytes"]), "recipe": "fp32, AdamW",
                       "settings": SETTINGS, "model": MODEL})


if __name__ == "__main__":
    sys.exit(main())
