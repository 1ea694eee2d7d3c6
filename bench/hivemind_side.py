"""One remote MoE layer in hivemind 1.1.12: prints rows per second.

Usage: hivemind_side.py moe|batched ROWS SECONDS. Runs in the peers' environment
(bench/requirements-hivemind.txt); server and client talk over localhost.
"""
import json
import sys
import time

import torch
import hivemind


def main():
    kind, rows, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(1)
    server = hivemind.moe.Server.create(
        expert_uids=[f"ffn.{i}" for i in range(8)], expert_cls="ffn", hidden_dim=256,
        num_handlers=2, start=True, initial_peers=[])
    dht = hivemind.DHT(initial_peers=server.dht.get_visible_maddrs(), start=True)
    try:
        x = torch.randn(rows, 256, requires_grad=True)
        if kind == "moe":
            layer = hivemind.moe.RemoteMixtureOfExperts(
                in_features=256, grid_size=(8,), dht=dht, uid_prefix="ffn.", k_best=2, k_min=2,
                forward_timeout=30, backward_timeout=30, timeout_after_k_min=1)
        else:
            layer = hivemind.moe.get_experts(dht, ["ffn.0"])[0]
            deadline = time.time() + 60
            while layer is None and time.time() < deadline:
                time.sleep(0.5)
                layer = hivemind.moe.get_experts(dht, ["ffn.0"])[0]

        def once():
            layer(x).sum().backward()

        deadline = time.time() + 60
        while True:
            try:
                once()
                break
            except Exception:  # the experts are not in the DHT yet
                if time.time() > deadline:
                    raise
                time.sleep(1)
        for _ in range(3):
            once()
        begin, passes = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            once()
            passes += 1
        elapsed = time.perf_counter() - begin
        print(json.dumps({"rows_per_s": round(passes * rows / elapsed, 1)}), flush=True)
    finally:
        dht.shutdown()
        server.shutdown()


if __name__ == "__main__":
    main()
