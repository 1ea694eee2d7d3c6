# tests/parity/export_oracle.py: transformers' view of an export: does it load whole, and do its logits agree?
"""export_oracle.py FOLDER LOGITS [FOLDER LOGITS ...]

FOLDER is a model as `pcmoe export` writes it, LOGITS what its --logits wrote. Prints one JSON list, an object a
folder: "keys": names that are missing, unexpected or of another shape; "difference": of the logits in fp32,
relative to the largest; "model_type".
"""

import json
import sys

import safetensors.torch
import torch
import transformers


def check(folder, logits_file):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, attn_implementation="sdpa",
        experts_implementation="eager"
    )
    keys = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        keys += [f"{kind}: {key}" for key in sorted(map(str, info.get(kind) or []))]
    wanted = safetensors.torch.load_file(logits_file)
    with torch.no_grad():
        logits = model.eval()(input_ids=wanted["input_ids"]).logits.float()
    largest = wanted["logits"].abs().max().item()
    difference = (logits - wanted["logits"]).abs().max().item() / largest
    return {"model_type": model.config.model_type, "keys": keys, "difference": difference}


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    print(json.dumps([check(*pair) for pair in zip(sys.argv[1::2], sys.argv[2::2])]))
