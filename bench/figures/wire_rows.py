# bench/figures/wire_rows.py: bytes on the parties' sockets against 4 x rows x width x bytes (DESIGN 3.2).
# needs: pcmoe
"""Every party is dialled through a forwarder of this script, which counts what passes in both directions:
TLS, HTTP/2, message headers, expert ids and gate weights, padding of the row counts, votes and byes, all in.
Rows are the distinct (token, remote owner) pairs that the parties report in metrics.jsonl."""
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading

import federation
import lib

HIDDEN, STEPS, FIRST_PORT = 512, 8, 7950
MODEL = federation.olmoe(HIDDEN, 64, 2, 8, 8, 2)
TRAINING = {"max_steps": STEPS, "sequence_length": 128, "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2, "save_steps": 0}
DEADLINE_S = 300


class Forwarder:
    """127.0.0.2:port to 127.0.0.1:port, counting bytes of TCP payload."""

    def __init__(self, port):
        self.port, self.bytes, self.lock = port, 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.2", port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                incoming, _ = self.listener.accept()
            except OSError:
                return  # closed
            try:
                outgoing = socket.create_connection(("127.0.0.1", self.port), timeout=10)
                outgoing.settimeout(None)
            except OSError:
                incoming.close()  # not up yet; the party dials again
                continue
            for source, target in ((incoming, outgoing), (outgoing, incoming)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.copy, args=(source, target), daemon=True).start()

    def copy(self, source, target):
        try:
            while data := source.recv(1 << 18):
                target.sendall(data)
                with self.lock:
                    self.bytes += len(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for side in (source, target):
                side.close()


def run(folder):
    """Runs the federation in `folder`; returns (bytes on the sockets, rows, metrics by party)."""
    data = federation.demo_data()
    (folder / "config.json").write_text(json.dumps(MODEL))
    (folder / "federation.toml").write_text(federation.to_toml({
        "model": {"model_name_or_path": "config.json", "tokenizer": str(data / "tokenizer.json")},
        "training": TRAINING, "border": {"allow_readable_rows": True},
        "run": {"on_peer_loss": "stop"}}))
    ports = {party: FIRST_PORT + i for i, party in enumerate(federation.PARTIES)}
    subprocess.run([federation.PCMOE, "provision", "--config", folder / "federation.toml", "--parties",
                    ",".join(ports), "--out", folder / "fed"] +
                   [f"--address={p}=127.0.0.2:{port}" for p, port in ports.items()],
                   check=True, stdout=subprocess.DEVNULL)
    forwarders = [Forwarder(port) for port in ports.values()]
    processes = []
    try:
        for party in ports:
            processes.append(subprocess.Popen(
                [federation.PCMOE, "train", "--config", folder / "fed" / party / "party.toml", "--set",
                 f"data.train={data / party / 'train.jsonl'}", "--set", "run.listen=127.0.0.1"],
                env=dict(os.environ, OMP_NUM_THREADS="1"),
                stderr=open(folder / "fed" / party / "log", "w")))
        for party, process in zip(ports, processes):
            if process.wait(timeout=DEADLINE_S) != 0:
                sys.exit(f"wire_rows: party {party} failed: " +
                         (folder / "fed" / party / "log").read_text()[-300:])
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for forwarder in forwarders:
            forwarder.listener.close()
    out = [folder / "fed" / party / "out" for party in ports]
    lines = [json.loads(line) for o in out for line in (o / "metrics.jsonl").read_text().splitlines()]
    rows = sum(line.get("rows_sent", 0) for line in lines)
    payload = sum(json.loads((o / "result.json").read_text())["sent_bytes"] for o in out)
    return sum(f.bytes for f in forwarders), rows, payload


def main():
    federation.PCMOE = lib.binary("pcmoe")
    with tempfile.TemporaryDirectory() as folder:
        on_sockets, rows, payload = run(pathlib.Path(folder))
    formula = 4 * rows * HIDDEN * 4
    tokens = (TRAINING["sequence_length"] * TRAINING["per_device_train_batch_size"] *
              TRAINING["gradient_accumulation_steps"] * STEPS * len(federation.PARTIES))
    owners = rows / (tokens * MODEL["num_hidden_layers"])
    lib.table(["", "MB", "of the formula"],
              [["formula: 4 x rows x D x 4 bytes", f"{formula / 1e6:.2f}", "1.0000"],
               ["sent by the channels", f"{payload / 1e6:.2f}", f"{payload / formula:.4f}"],
               ["on the sockets", f"{on_sockets / 1e6:.2f}", f"{on_sockets / formula:.4f}"]])
    return lib.report("wire_rows", on_sockets / formula, 1.02, "x", {
        "socket_bytes": on_sockets, "channel_bytes": payload, "formula_bytes": formula, "rows": rows,
        "remote_owners_a_token": round(owners, 4), "steps": STEPS}, at_least=False)


if __name__ == "__main__":
    sys.exit(main())
