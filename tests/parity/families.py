# tests/parity/families.py: small random models of every family, and our names of their tensors.
"""Used by the oracles beside it; torch and transformers come from .venv."""

import torch
import transformers

_SIZES = dict(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_experts_per_tok=2,
    max_position_embeddings=128,
    initializer_range=0.2,
    router_aux_loss_coef=0.05,
    attention_dropout=0.0,
    pad_token_id=None,
    bos_token_id=None,
    eos_token_id=None,
)
_OLMOE = dict(num_experts=8, intermediate_size=24, num_key_value_heads=4)
_MIXTRAL = dict(num_local_experts=8, intermediate_size=24, num_key_value_heads=2)
_QWEN2 = dict(
    num_experts=8,
    moe_intermediate_size=24,
    shared_expert_intermediate_size=40,
    intermediate_size=48,
    num_key_value_heads=2,
)
_QWEN3 = dict(
    num_experts=8,
    moe_intermediate_size=24,
    intermediate_size=48,
    num_key_value_heads=2,
    head_dim=12,
    norm_topk_prob=True,
)

VARIANTS = {
    "olmoe": ("olmoe", _OLMOE),
    "olmoe_clip_gqa": ("olmoe", _OLMOE | dict(clip_qkv=0.9, num_key_value_heads=2)),
    "olmoe_tied": ("olmoe", _OLMOE | dict(tie_word_embeddings=True)),
    "olmoe_pad": ("olmoe", _OLMOE | dict(pad_token_id=1)),
    "olmoe_bias_norm": ("olmoe", _OLMOE | dict(attention_bias=True, norm_topk_prob=True)),
    "mixtral": ("mixtral", _MIXTRAL),
    "mixtral_tied": ("mixtral", _MIXTRAL | dict(tie_word_embeddings=True)),
    "qwen2_moe": ("qwen2_moe", _QWEN2 | dict(mlp_only_layers=[1])),
    "qwen2_moe_tied": ("qwen2_moe", _QWEN2 | dict(tie_word_embeddings=True)),
    "qwen3_moe": ("qwen3_moe", _QWEN3 | dict(mlp_only_layers=[0])),
    "qwen3_moe_step": ("qwen3_moe", _QWEN3 | dict(decoder_sparse_step=2, attention_bias=True)),
    "qwen3_moe_tied": ("qwen3_moe", _QWEN3 | dict(tie_word_embeddings=True)),
}


def make_model(variant, seed):
    """A float32 model in eval mode whose norms and biases are random too."""
    model_type, keys = VARIANTS[variant]
    config = transformers.AutoConfig.for_model(model_type, **(_SIZES | keys))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", experts_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.eval()


def checkpoint_names(model_type, tensors):
    """Tensors named as in the Hub's checkpoints, from transformers' fused names in memory."""
    mixtral = model_type == "mixtral"
    names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    result = {}
    for name, tensor in tensors.items():
        if mixtral:
            name = name.replace(".mlp.", ".block_sparse_moe.")
        if name.endswith("experts.gate_up_proj"):
            parts = ((names[0], tensor.chunk(2, dim=1)[0]), (names[1], tensor.chunk(2, dim=1)[1]))
        elif name.endswith("experts.down_proj"):
            parts = ((names[2], tensor),)
        else:
            result[name] = tensor.contiguous()
            continue
        prefix = name.rsplit(".", 1)[0]
        for part, values in parts:
            for expert in range(values.shape[0]):
                result[f"{prefix}.{expert}.{part}.weight"] = values[expert].contiguous()
    return result
