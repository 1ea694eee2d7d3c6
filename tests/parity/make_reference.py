# tests/parity/make_reference.py: what transformers computes for small random models.
"""make_reference.py OUT_DIR VARIANT...

For each variant writes OUT_DIR/VARIANT/: the model as save_pretrained writes it, and
reference.safetensors with four runs: plain/ (float32), aux/ (float32, with the balance loss),
small/ (float32, a batch whose routing even bfloat16 cannot change) and bf16/ (the same in
bfloat16). Each has input_ids and labels [B, S], loss, logits, and grad/NAME of every parameter
under its name in a per-expert checkpoint; aux/ has aux_loss too.
"""

import pathlib
import sys

import safetensors.torch
import torch
import transformers

import families

BATCH, LENGTH = 3, 24
# Softmax weights of the last expert chosen and the first not chosen differ by at least this much,
# far above what float32 loses, so that no choice hangs on rounding.
MIN_GAP = 2e-4
SMALL_BATCH, SMALL_LENGTH = 8, 6
SMALL_MIN_GAP = 2e-2


def make_batch(config, generator):
    ids = torch.randint(config.vocab_size, (BATCH, LENGTH), generator=generator)
    if config.pad_token_id is not None:
        ids[:, 5] = config.pad_token_id
    labels = ids.clone()
    labels[torch.rand(ids.shape, generator=generator) < 0.2] = -100
    labels[1, -6:] = -100
    return ids, labels


def make_small_batch(model, generator):
    found = []
    for _ in range(4000):
        ids = torch.randint(model.config.vocab_size, (1, SMALL_LENGTH), generator=generator)
        if smallest_gap(model, ids) >= SMALL_MIN_GAP:
            found.append(ids)
        if len(found) == SMALL_BATCH:
            ids = torch.cat(found)
            return ids, ids.clone()
    sys.exit("too few short sequences have routing far from ties")


def smallest_gap(model, ids):
    with torch.no_grad():
        logits = model(input_ids=ids, output_router_logits=True).router_logits
    top = model.config.num_experts_per_tok
    gaps = []
    for layer in logits:
        best = layer.float().softmax(-1).sort(dim=-1, descending=True).values
        gaps.append((best[:, top - 1] - best[:, top]).min().item())
    return min(gaps)


def results_of(model, batch, with_aux):
    ids, labels = batch
    model.zero_grad()
    out = model(input_ids=ids, labels=labels, output_router_logits=with_aux)
    out.loss.backward()
    results = {"loss": out.loss, "logits": out.logits}
    if with_aux:
        results["aux_loss"] = out.aux_loss
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, gradient in families.checkpoint_names(model.config.model_type, gradients).items():
        results[f"grad/{name}"] = gradient
    results = {name: value.detach().float() for name, value in results.items()}
    results |= {"input_ids": ids, "labels": labels}
    return {name: value.contiguous().clone() for name, value in results.items()}


def make(out, variant):
    for seed in range(200):
        model = families.make_model(variant, seed)
        generator = torch.Generator().manual_seed(seed)
        batch = make_batch(model.config, generator)
        if smallest_gap(model, batch[0]) >= MIN_GAP:
            break
    else:
        sys.exit(f"{variant}: no seed gives routing without near ties")
    folder = pathlib.Path(out) / variant
    model.save_pretrained(folder)
    half = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa", experts_implementation="eager"
    ).eval()
    small = make_small_batch(model, generator)
    tensors = {}
    for kind, which, on, with_aux in (
        ("plain", model, batch, False),
        ("aux", model, batch, True),
        ("small", model, small, False),
        ("bf16", half, small, False),
    ):
        for name, value in results_of(which, on, with_aux).items():
            tensors[f"{kind}/{name}"] = value
    safetensors.torch.save_file(tensors, folder / "reference.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for argument in sys.argv[2:]:
        make(sys.argv[1], argument)
