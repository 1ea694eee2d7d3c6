# tests/federation/export_processes_test.py: every party of a real federation gets one model that transformers
# loads; a policy forbids it in one sentence and leaves nothing. `export_processes_test.py BINARY` runs it.
import json
import pathlib
import shutil
import subprocess
import sys

from federation_runs import FED_TOML, PARTIES, PATIENCE_S, FederationCase, main

RUN_FAILED, CONNECTION, BAD_INPUT = 1, 2, 4
ORACLE = pathlib.Path(__file__).resolve().parent.parent / "parity" / "export_oracle.py"


def weights(folder):
    """Every tensor of a folder's safetensors files as (dtype, shape, bytes), by name."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:8 + size]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = (entry["dtype"], tuple(entry["shape"]),
                               data[8 + size + begin:8 + size + end])
    return found


class Export(FederationCase):
    def finished(self, **settings):
        """A federation whose run is over."""
        federation = self.federation(on_peer_loss="stop", **settings)
        federation.start_all()
        self.assertEqual(federation.wait(), dict.fromkeys(PARTIES, 0), federation.last_lines())
        return federation

    def export_all(self, federation, *flags):
        for party in PARTIES:
            federation.start(party, "--out", federation.folder / party / "model", "--logits",
                             federation.folder / f"{party}.logits", *flags, command="export")
        return federation.wait(patience=PATIENCE_S)

    def assert_transformers_agrees(self, *folders_and_logits):
        done = subprocess.run([sys.executable, ORACLE, *folders_and_logits], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=2 * PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        told = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(len(told), len(folders_and_logits) // 2)
        self.assertEqual([model["keys"] for model in told], [[]] * len(told))
        largest = max(model["difference"] for model in told)
        self.assertLessEqual(largest, 1e-5)
        print(f"transformers' logits differ by {largest:.1e}", file=sys.stderr)

    def owned(self, federation, step):
        """Tensors that one party alone has on disk, of all parties."""
        by_party = {party: weights(federation.out(party) / f"checkpoint-{step}") for party in PARTIES}
        for tensors in by_party.values():  # of the optimizer
            for name in [name for name in tensors if not name.startswith(("model.", "lm_head."))]:
                del tensors[name]
        return by_party

    def test_after_a_run_every_party_has_a_model_that_transformers_loads(self):
        with self.finished(exchange="weights") as federation:
            codes = self.export_all(federation, "--max-shard-size", "60KB")
            self.assertEqual(codes, dict.fromkeys(PARTIES, 0), federation.last_lines())
            on_disk = self.owned(federation, 12)
            for party in PARTIES:
                folder = federation.folder / party / "model"
                self.assertTrue((folder / "model.safetensors.index.json").exists())
                for name in ("config.json", "tokenizer.json"):
                    self.assertEqual((folder / name).read_bytes(), (self.root / name).read_bytes())
                model = weights(folder)
                for other in PARTIES:
                    for name, tensor in on_disk[other].items():
                        if other == party or name not in on_disk[party]:
                            self.assertEqual(model[name], tensor, name)
            self.assert_transformers_agrees(*[
                path for party in PARTIES for path in (federation.folder / party / "model",
                                                       federation.folder / f"{party}.logits")])
            ledger = subprocess.run([self.binary, "ledger", "verify",
                                     federation.out("a") / "ledger.jsonl"], capture_output=True)
            self.assertEqual(ledger.returncode, 0, ledger.stderr)
            # An earlier checkpoint, if all name it.
            codes = self.export_all(federation, "--step", "9", "--replace")
            self.assertEqual(codes, dict.fromkeys(PARTIES, 0), federation.last_lines())
            earlier = weights(federation.folder / "a" / "model")
            for name, tensor in self.owned(federation, 9)["a"].items():
                self.assertEqual(earlier[name], tensor, name)
            self.assertNotEqual(earlier, model)
            self.assertEqual(set(self.export_all(federation, "--step", "10", "--replace").values()), {BAD_INPUT})
            self.assertIn("not every party has a checkpoint of step 10 and exports it; this one has steps 9, 12",
                          federation.last_line("a"))
            # Again: the folders are there, and stay as they are.
            self.assertEqual(set(self.export_all(federation).values()), {BAD_INPUT})
            self.assertIn("holds an earlier export", federation.last_line("a"))

    def test_a_run_by_rows_exports_at_its_end(self):
        with self.federation(exchange="rows", on_peer_loss="stop") as federation:
            for party in PARTIES:
                federation.extra[party] = [f"run.export_dir={federation.folder / party / 'model'}"]
            federation.start_all()
            self.assertEqual(federation.wait(), dict.fromkeys(PARTIES, 0), federation.last_lines())
            on_disk = self.owned(federation, 12)
            experts = {name: tensor for tensors in on_disk.values()
                       for name, tensor in tensors.items() if ".experts." in name}
            self.assertEqual(len(experts), 2 * 8 * 3)
            for party in PARTIES:
                model = weights(federation.folder / party / "model")
                self.assertEqual(model, {**on_disk[party], **experts})
            # Those who come again find it done, and do it again: a party may have lost its folder.
            shutil.rmtree(federation.folder / "b" / "model")
            federation.start_all()
            self.assertEqual(federation.wait(), dict.fromkeys(PARTIES, 0), federation.last_lines())
            self.assertEqual(weights(federation.folder / "b" / "model"),
                             {**on_disk["b"], **experts})

    def test_a_policy_that_forbids_it_is_named_and_nothing_is_left(self):
        with self.finished(exchange="rows") as federation:
            federation.extra["a"] = ["border.forbid=b:unit_weights"]
            codes = self.export_all(federation)
            self.assertEqual(codes["a"], BAD_INPUT)
            line = federation.last_line("a")
            self.assertTrue(line.startswith("pcmoe: "), line)
            self.assertIn("the border keeps unit_weights from b: this party's policy forbids it", line)
            for party in "bcd":
                self.assertIn(codes[party], (RUN_FAILED, CONNECTION), federation.last_line(party))
                self.assertIn("party a", federation.last_line(party))
            for party in PARTIES:
                left = sorted(path.name for path in (federation.folder / party).iterdir())
                self.assertFalse([name for name in left if "model" in name], left)
            ledger = (federation.out("a") / "ledger.jsonl").read_text()
            self.assertNotIn('"kind":"unit_weights"', ledger)
            self.assertEqual(len(list(federation.out("a").glob("checkpoint-*"))), 2)
            # Of a run that would export, it is said before the first step.
            federation.extra["a"] += [f"run.export_dir={federation.folder / 'a' / 'model'}"]
            federation.start("a")
            self.assertEqual(federation.wait("a")["a"], BAD_INPUT)
            self.assertIn("no export: the border keeps unit_weights", federation.last_line("a"))

    def test_all_parties_export_or_none(self):
        with self.federation(exchange="weights", rendezvous_timeout_s=20) as federation:
            for party in "abc":
                federation.extra[party] = [f"run.export_dir={federation.folder / party / 'model'}"]
            federation.start_all()
            codes = federation.wait()
            self.assertEqual(codes, dict.fromkeys(PARTIES, BAD_INPUT), federation.last_lines())
            self.assertIn("party d has no [run] export_dir", federation.last_line("b"))
            self.assertEqual(federation.all_checkpoints(), {})
            for party in PARTIES:
                federation.extra[party] = []
            codes = self.export_all(federation)
            self.assertEqual(codes, dict.fromkeys(PARTIES, BAD_INPUT))
            self.assertIn("no checkpoint that all parties have", federation.last_line("c"))

    def sim(self, name, *flags):
        config = self.root / f"{name}.toml"
        config.write_text('[data]\ntrain = "{party}.train.jsonl"\n' + FED_TOML.format(
            max_steps=4, exchange="weights", schedule="synchronous", placement="round_robin",
            on_peer_loss="stop", rendezvous_timeout_s=40))
        done = subprocess.run([self.binary, "sim", "--config", config, "--out", self.root / name,
                               "--export", "--json", *flags], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=2 * PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.root / name

    def test_one_command_on_one_machine(self):
        aggregated = [f"--set=federation.{key}=aggregated" for key in ("backbone", "embedding", "head")]
        out = self.sim("aggregated_sim", "-n", "4", *aggregated)
        models = [weights(out / party / "export") for party in PARTIES]
        self.assertEqual(len(models[0]), 2 * (9 + 8 * 3) + 3)
        for model in models[1:]:
            self.assertEqual(model, models[0])

    def test_a_run_of_one_party(self):
        out = self.sim("central_sim", "-n", "1", "--compare", "central")
        central = out / "compared_with" / "central"
        model = weights(central / "export")
        self.assertEqual(model, weights(out / "a" / "export"))
        checkpoint = weights(central / "out" / "checkpoint-4")
        self.assertEqual(model, {name: checkpoint[name] for name in model})
        again = self.root / "again"
        subprocess.run([self.binary, "export", "--config", central / "party.toml", "--out", again,
                        "--logits", self.root / "again.logits"], check=True, capture_output=True,
                       timeout=PATIENCE_S)
        self.assertEqual(weights(again), model)
        self.assert_transformers_agrees(again, self.root / "again.logits")


if __name__ == "__main__":
    main()
