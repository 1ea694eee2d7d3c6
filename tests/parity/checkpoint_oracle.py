# tests/parity/checkpoint_oracle.py: transformers' side of the checkpoint round trip.
"""checkpoint_oracle.py check FOLDER...

Loads each folder; every tensor must arrive with its values, and none may be left over.

checkpoint_oracle.py make OUT VARIANT...

Writes OUT/VARIANT/{per_expert,fused,sharded}, and expected.safetensors beside them.
"""

import pathlib
import sys

import safetensors.torch
import torch
import transformers

import families


def check(folder):
    folder = pathlib.Path(folder)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            sys.exit(f"{folder.name}: {kind}: {sorted(map(str, info[kind]))[:5]}")
    loaded = families.checkpoint_names(model.config.model_type, dict(model.named_parameters()))
    written = {}
    for path in folder.glob("model*.safetensors"):
        written |= safetensors.torch.load_file(path)
    if loaded.keys() != written.keys():
        sys.exit(f"{folder.name}: names differ: {sorted(loaded.keys() ^ written.keys())[:5]}")
    for name, tensor in loaded.items():
        if not torch.equal(tensor, written[name].float()):
            sys.exit(f"{folder.name}: {name} has other values")


def make(out, variant):
    model = families.make_model(variant, seed=3)
    out = pathlib.Path(out) / variant
    model.save_pretrained(out / "per_expert")
    model.save_pretrained(out / "fused", save_original_format=False)
    model.save_pretrained(out / "sharded", max_shard_size="40KB")
    if not (out / "sharded" / "model.safetensors.index.json").exists():
        sys.exit("the sharded folder has one shard only; make the shards smaller")
    names = safetensors.torch.load_file(out / "fused" / "model.safetensors").keys()
    if not any(name.endswith("experts.gate_up_proj") for name in names):
        sys.exit("the fused folder has no fused names")
    tensors = {name: value.detach() for name, value in model.named_parameters()}
    safetensors.torch.save_file(
        families.checkpoint_names(model.config.model_type, tensors), out / "expected.safetensors"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if sys.argv[1] == "check":
        for argument in sys.argv[2:]:
            check(argument)
    else:
        for argument in sys.argv[3:]:
            make(sys.argv[2], argument)
