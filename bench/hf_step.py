# bench/hf_step.py: the other side of hf_fp32 and hf_best: a bare PyTorch training loop over transformers'
# olmoe. Reads "VARIANT EXPERTS STEPS WARMUP" lines, answers each with the seconds of every timed step.
"""A worker, so that variants alternate with pcmoe without starting Python again.

VARIANT is fp32, bf16 (weights, optimizer state and all) or autocast (fp32 weights, bf16 products);
EXPERTS is eager or grouped_mm. Attention is SDPA, the optimizer torch's fused AdamW; the gradient is
clipped to norm 1 as pcmoe does. The model has the balance loss on, as pcmoe does.
"""
import json
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM


class Loop:
    """One model with its optimizer."""

    def __init__(self, config_path, variant, experts, sequences, length):
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(config_path)
        self.model = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", experts_implementation=experts,
            dtype=torch.bfloat16 if variant == "bf16" else torch.float32)
        assert self.model.config._experts_implementation == experts
        self.model.train()
        self.autocast = variant == "autocast"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True,
                                           weight_decay=0.0)
        self.tokens = torch.randint(config.vocab_size, (sequences, length))

    def step(self):
        """Seconds of one step."""
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss = self.model(input_ids=self.tokens, labels=self.tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        return time.perf_counter() - start


def main():
    config_path, threads, sequences, length = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    loops = {}
    print(json.dumps({"ready": True, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        variant, experts, steps, warmup = line.split()
        key = (variant, experts)
        if key not in loops:
            loops[key] = Loop(config_path, variant, experts, sequences, length)
            loops[key].step()
        for _ in range(int(warmup)):
            loops[key].step()
        print(json.dumps({"seconds": [loops[key].step() for _ in range(int(steps))]}), flush=True)


if __name__ == "__main__":
    main()
