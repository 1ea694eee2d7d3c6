# tests/federation/federation_runs.py: federations of real pcmoe processes on a tiny model, for the tests
# of this folder.
import glob
import hashlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

PARTIES = "abcd"
# A test waits at most this long for anything; the machine may be busy.
PATIENCE_S = 120

CONFIG = {
    "model_type": "olmoe", "architectures": ["OlmoeForCausalLM"], "vocab_size": 257,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "norm_topk_prob": False, "router_aux_loss_coef": 0.01, "output_router_logits": True,
    "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02,
    "attention_bias": False}

FED_TOML = """
[model]
model_name_or_path = "config.json"
tokenizer = "tokenizer.json"
[training]
learning_rate = 3e-3
max_steps = {max_steps}
sequence_length = 32
per_device_train_batch_size = 2
gradient_accumulation_steps = 2
save_steps = 3
max_grad_norm = 0.5
[federation]
exchange = "{exchange}"
schedule = "{schedule}"
placement = "{placement}"
[border]
allow_readable_rows = true
[run]
on_peer_loss = "{on_peer_loss}"
keepalive_s = 1
peer_timeout_s = 20
rendezvous_timeout_s = {rendezvous_timeout_s}
"""


def byte_tokenizer():
    """A tokenizer.json that knows the 256 bytes and an end of text, and merges nothing."""
    printable = [b for b in range(256)
                 if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    others = [b for b in range(256) if b not in printable]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    end = {"id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
           "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {c: i for i, c in enumerate(characters)}, "merges": []}}


def write_inputs(folder):
    """config.json, tokenizer.json, and a train and dev file per party, always the same."""
    folder = pathlib.Path(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    for place, party in enumerate(PARTIES):
        rng = random.Random(place)
        words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 6))) for _ in range(40)]
        for name, lines in (("train", 60), ("dev", 4)):
            with open(folder / f"{party}.{name}.jsonl", "w", encoding="utf-8") as out:
                for _ in range(lines):
                    print(json.dumps({"text": " ".join(rng.choices(words, k=20))}), file=out)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Federation:
    """One provisioned federation in a folder, and its processes. Use with `with`: none survives."""

    def __init__(self, binary, inputs, folder, max_steps=12, schedule="synchronous",
                 placement="round_robin", on_peer_loss="wait", rendezvous_timeout_s=40,
                 exchange="rows"):
        self.binary, self.inputs = binary, pathlib.Path(inputs)
        self.folder = pathlib.Path(folder)
        self.max_steps = max_steps
        self.processes = {}
        self.exit_codes = {}
        self.extra = {party: [] for party in PARTIES}
        self.config = self.inputs / f"{self.folder.name}.toml"
        self.config.write_text(FED_TOML.format(
            max_steps=max_steps, exchange=exchange, schedule=schedule, placement=placement, on_peer_loss=on_peer_loss,
            rendezvous_timeout_s=rendezvous_timeout_s))
        self.ports = dict(zip(PARTIES, free_ports(len(PARTIES))))
        self.provision()
        for party in PARTIES:
            self.set_shuffle_key(party)

    def provision(self, out=None):
        command = [self.binary, "provision", "--config", self.config, "--parties",
                   ",".join(PARTIES), "--out", out or self.folder]
        for party, port in self.ports.items():
            command += ["--address", f"{party}=127.0.0.1:{port}"]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)

    def provision_again(self, old, new):
        """A new manifest by the same authority, after `old` in the settings became `new`."""
        text = self.config.read_text()
        assert old in text, text
        self.config.write_text(text.replace(old, new))
        self.provision()

    def set_shuffle_key(self, party):
        """The same secret in every federation, so that two can be compared."""
        path = self.folder / party / "shuffle.key"
        path.write_text(hashlib.sha256(party.encode()).hexdigest() + "\n")
        path.chmod(0o600)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for party in list(self.processes):
            self.kill(party)

    def out(self, party):
        return self.folder / party / "out"

    def start(self, party, *flags, command="train"):
        command = [self.binary, command, "--config", self.folder / party / "party.toml", *flags]
        if not any(extra.startswith("data.train") for extra in self.extra[party]):
            command += ["--set", f"data.train={self.inputs}/{party}.train.jsonl"]
        command += ["--set", f"data.eval={self.inputs}/{party}.dev.jsonl"]
        for extra in self.extra[party]:
            command += ["--set", extra]
        with open(self.folder / f"{party}.log", "a", encoding="utf-8") as log:
            self.processes[party] = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def start_all(self):
        for party in PARTIES:
            self.start(party)

    def signal(self, party, number):
        self.processes[party].send_signal(number)

    def kill(self, party):
        process = self.processes.pop(party)
        process.kill()  # also ends a stopped one
        process.wait(timeout=PATIENCE_S)

    def running(self, party):
        return self.processes[party].poll() is None

    def wait(self, parties=PARTIES, patience=PATIENCE_S):
        """Exit codes by party of those that ended; raises when one does not."""
        deadline = time.monotonic() + patience
        codes = {}
        for party in parties:
            try:
                codes[party] = self.processes[party].wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"party {party} does not end:\n{self.last_lines()}") from None
        return codes

    def log(self, party):
        return (self.folder / f"{party}.log").read_text(encoding="utf-8").splitlines()

    def last_line(self, party):
        lines = self.log(party)
        return lines[-1] if lines else ""

    def step(self, party):
        """The newest committed step that the party has reported."""
        newest = 0
        try:
            lines = (self.out(party) / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return 0
        for line in lines[-6:]:
            newest = max(newest, json.loads(line).get("step", 0))
        return newest

    def last_lines(self):
        return "\n".join(f"{p}: {self.processes[p].poll() if p in self.processes else '-'} {line}"
                         for p in PARTIES for line in self.log(p)[-3:])

    def wait_for_step(self, party, step, patience=PATIENCE_S):
        deadline = time.monotonic() + patience
        while self.step(party) < step:
            if not self.running(party):
                raise AssertionError(f"party {party} ended early:\n{self.last_lines()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"party {party} never came to step {step}:\n{self.last_lines()}")
            time.sleep(0.005)

    def last_sent_kind(self, party):
        """The kind of the newest message in the party's ledger: where it is in its step."""
        try:
            with open(self.out(party) / "ledger.jsonl", "rb") as ledger:
                size = ledger.seek(0, os.SEEK_END)
                ledger.seek(max(0, size - 2000))
                lines = ledger.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return ""
        return json.loads(lines[-1]).get("kind", "") if len(lines) > 1 else ""

    def is_writing(self, party):
        return bool(glob.glob(str(self.out(party) / ".unfinished-*")))

    def checkpoints(self, party):
        """Every tensor file of every checkpoint, by name, as digests."""
        files = sorted(self.out(party).glob("checkpoint-*/*.safetensors"))
        return {f"{party}/{file.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
                for file in files}

    def trainer_state(self, party, step):
        """What transformers reads from a checkpoint; its own keys and no others."""
        path = self.out(party) / f"checkpoint-{step}" / "trainer_state.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def all_checkpoints(self):
        return {name: digest for party in PARTIES
                for name, digest in self.checkpoints(party).items()}

    def metrics(self, party):
        lines = (self.out(party) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def losses(self, party):
        return [record["loss"] for record in self.metrics(party) if "loss" in record]

    def result(self, party):
        return json.loads((self.out(party) / "result.json").read_text(encoding="utf-8"))


class FederationCase(unittest.TestCase):
    """Federations on the same inputs, in a folder that is removed; `main` sets the binary."""

    binary = ""

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.scratch.name)
        write_inputs(cls.root)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def federation(self, name=None, **settings):
        """In a folder called `name`, else like the test."""
        name = name or self.id().rsplit(".", 1)[-1]
        return Federation(self.binary, self.root, self.root / name, **settings)


def main():
    """Runs the tests of the calling script: SCRIPT BINARY [unittest's arguments]."""
    FederationCase.binary = sys.argv.pop(1)
    unittest.main(verbosity=2)


STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT
TERMINATE, KILL = signal.SIGTERM, signal.SIGKILL
