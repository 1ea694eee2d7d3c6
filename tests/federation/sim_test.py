# tests/federation/sim_test.py: `pcmoe sim` leaves no process behind, however it ends, and does with one
# party too. `sim_test.py BINARY` runs it.
import json
import os
import pathlib
import signal
import subprocess
import time

from federation_runs import FED_TOML, PATIENCE_S, FederationCase, main

RUN_FAILED = 1
DATA = """
[data]
train = "{party}.train.jsonl"
eval = "{party}.dev.jsonl"
"""


def parents():
    """Parent by process id, of those that are not zombies."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


class Sim(FederationCase):
    def start(self, max_steps, *flags):
        """A sim in a folder called like the test; killed at the end of the test at the latest."""
        name = self.id().rsplit(".", 1)[-1]
        config = self.root / f"{name}.toml"
        config.write_text(DATA + FED_TOML.format(
            max_steps=max_steps, exchange="weights", schedule="synchronous", placement="round_robin",
            on_peer_loss="wait", rendezvous_timeout_s=40))
        self.out = self.root / name
        self.log = self.root / f"{name}.log"
        with open(self.log, "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [self.binary, "sim", "--config", config, "--out", self.out, *flags],
                stdout=subprocess.PIPE, stderr=log, encoding="utf-8")
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def until(self, what, condition, patience=PATIENCE_S):
        deadline = time.monotonic() + patience
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"never {what}: {self.last_line()}")
            time.sleep(0.02)

    def last_line(self):
        return (self.log.read_text(encoding="utf-8").splitlines() or [""])[-1]

    def running(self, max_steps=5000):
        """A sim whose four parties train, and their process ids by name."""
        sim = self.start(max_steps, "-n", "4")
        for party in "abcd":
            metrics = self.out / party / "out" / "metrics.jsonl"
            self.until(f"does {party} train", lambda: sim.poll() is not None or metrics.exists() and
                       metrics.read_text(encoding="utf-8").count('"loss"') > 3)
            self.assertIsNone(sim.poll(), self.last_line())
        parties = {}
        for pid in (pid for pid, parent in parents().items() if parent == sim.pid):
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parties[pathlib.Path(os.fsdecode(command[3])).parent.name] = pid
        self.assertEqual(sorted(parties), list("abcd"))
        return sim, parties

    def assert_gone(self, parties, patience):
        self.until("are all parties gone", lambda: not set(parties.values()) & set(parents()), patience)

    def test_ctrl_c_stops_all_parties(self):
        sim, parties = self.running()
        sim.send_signal(signal.SIGINT)
        self.assertEqual(sim.wait(timeout=30), RUN_FAILED)
        self.assertIn("interrupted: all parties were stopped", self.last_line())
        self.assert_gone(parties, 0)
        said = (self.out / "a" / "log").read_text(encoding="utf-8").splitlines()[-1]
        self.assertTrue(said.startswith("pcmoe: "), said)

    def test_a_party_that_ignores_it_is_killed_after_a_while(self):
        sim, parties = self.running()
        os.kill(parties["c"], signal.SIGSTOP)
        begin = time.monotonic()
        sim.send_signal(signal.SIGTERM)
        self.assertEqual(sim.wait(timeout=40), RUN_FAILED)
        self.assertGreater(time.monotonic() - begin, 5)  # it had its time
        self.assertIn("interrupted: all parties were stopped", self.last_line())
        self.assert_gone(parties, 0)

    def test_no_party_outlives_a_sim_that_is_killed(self):
        sim, parties = self.running()
        os.kill(parties["b"], signal.SIGSTOP)  # this one neither
        sim.kill()
        sim.wait(timeout=30)
        self.assert_gone(parties, 10)

    def test_a_killed_party_ends_the_run_and_is_named(self):
        sim, parties = self.running()
        os.kill(parties["c"], signal.SIGKILL)
        self.assertEqual(sim.wait(timeout=40), RUN_FAILED)
        self.assertIn("c: killed by signal 9", self.last_line())
        self.assert_gone(parties, 0)

    def test_one_party_is_as_good_as_a_central_run(self):
        sim = self.start(8, "-n", "1", "--compare", "central", "--json")
        out, _ = sim.communicate(timeout=PATIENCE_S)
        self.assertEqual(sim.returncode, 0, self.last_line())
        runs = json.loads(out)["runs"]
        self.assertEqual(runs["federated"]["eval_loss"], runs["central"]["eval_loss"])
        self.assertEqual(runs["federated"]["sent_bytes"], 0)
        self.assert_reports(self.out, runs)

    def report(self, *arguments):
        return subprocess.run([self.binary, "report", *arguments], capture_output=True, encoding="utf-8",
                              check=False, timeout=PATIENCE_S)

    def assert_reports(self, out, runs):
        """The sim and each of its runs end with a page; `pcmoe report` makes the same one again."""
        central = out / "compared_with" / "central" / "out"
        texts = [json.loads(line)["text"] for file in self.root.glob("*.jsonl")
                 for line in file.read_text(encoding="utf-8").splitlines()]
        self.assertGreater(len(texts), 10)
        for folder in (out, out / "a" / "out", central):
            page = (folder / "report.html").read_text(encoding="utf-8")
            self.assertEqual([], [text for text in texts if len(text) > 20 and text[:40] in page])
            self.assertIn("How it was made", page)
            again = self.report(folder, "--out", self.root / "again.html")
            self.assertEqual((again.returncode, again.stderr), (0, ""))
            self.assertEqual((self.root / "again.html").read_text(encoding="utf-8"), page)
            if folder != out:
                self.assertEqual(len(list((folder / "runs").glob("events.out.tfevents.*"))), 1)
        # Two layers; every token of a step makes as many choices in each.
        for line in (central / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            load = json.loads(line).get("expert_load", [[1], [1]])
            self.assertEqual([len(load), len({sum(layer) for layer in load})], [2, 1], line)
        page = (out / "report.html").read_text(encoding="utf-8")
        self.assertIn("%.4f" % runs["central"]["mean_eval_loss"], page)
        planned = json.loads((central / "about.json").read_text(encoding="utf-8"))["planned"]
        measured = json.loads((central / "result.json").read_text(encoding="utf-8"))
        self.assertLess(abs(planned["states_bytes"] / measured["states_bytes"] - 1), 0.1)

    def test_no_report_of_what_is_no_run(self):
        empty = self.root / "empty"
        empty.mkdir()
        for arguments, sentence in (((empty,), "holds no run"), ((self.root / "absent",), "is not a folder")):
            done = self.report(*arguments)
            self.assertEqual((done.returncode, done.stdout), (4, ""))
            self.assertTrue(done.stderr.startswith("pcmoe: "), done.stderr)
            self.assertIn(sentence, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)

    def labelled(self):
        """A word to classify for every party: what its first letter says; c has ten times the rows."""
        for place, party in enumerate("abcd"):
            for kind, rows in ("train", 400 if party == "c" else 40), ("dev", 24):
                lines = []
                for i in range(rows):
                    word = chr(97 + (i * 7 + place) % 4) + "xyz"[i % 3] * (i % 5)
                    lines.append(json.dumps({"text": word, "label": "low" if word[0] in "ab" else "high"}))
                (self.root / f"{party}.labels.{kind}.jsonl").write_text("\n".join(lines) + "\n")
        return ["--set", "data.train={party}.labels.train.jsonl",
                "--set", "data.eval={party}.labels.dev.jsonl",
                "--set", "data.batching=group_by_length", "--set", "training.learning_rate=1e-2",
                "--set", "training.per_device_train_batch_size=8"]

    def metrics(self, folder, key):
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [entry[key] for entry in map(json.loads, lines) if key in entry]

    def test_all_aggregated_is_one_run_of_a_file_that_the_user_wrote(self):
        sets = [*self.labelled(), "--set", "training.logging_steps=1", "--set", "training.eval_steps=2"]
        sim = self.start(6, "-n", "4", "--json", *sets, "--set", "federation.backbone=aggregated",
                         "--set", "federation.embedding=aggregated", "--set", "federation.head=aggregated",
                         "--set", "federation.min_rows=0")
        sim.communicate(timeout=PATIENCE_S)
        self.assertEqual(sim.returncode, 0, self.last_line())
        settings = (self.root / f"{self.out.name}.toml").read_text()
        # Its own file names the data (sets has them first); all else is the same.
        files = {"train": [f"{party}.labels.train.jsonl" for party in "abcd"], "dev": ["a.labels.dev.jsonl"]}
        for kind, named in files.items():
            settings = settings.replace(f'"{{party}}.{kind}.jsonl"', json.dumps(named))
        central = self.root / "central.toml"
        central.write_text(settings.replace("[run]", '[run]\nidentity = "none"\noutput_dir = "central_out"'))
        done = subprocess.run([self.binary, "train", "--config", central, *sets[4:]], capture_output=True,
                              encoding="utf-8", check=False, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        for key, entries in ("grad_norm", 6), ("eval_loss", 3):
            ours = self.metrics(self.out / "a/out", key)
            self.assertEqual(len(ours), entries)
            for got, want in zip(ours, self.metrics(self.root / "central_out", key)):
                self.assertLess(abs(got / want - 1), 1e-3, key)

    def test_labels_are_learned_and_the_best_checkpoint_by_the_mean_is_kept(self):
        sim = self.start(60, "-n", "4", "--json", *self.labelled(), "--set", "training.eval_steps=5",
                         "--set", "training.metric_for_best_model=eval_accuracy",
                         "--set", "training.early_stopping_patience=3")
        sim.communicate(timeout=PATIENCE_S)
        self.assertEqual(sim.returncode, 0, self.last_line())
        own, means, best = {}, {}, set()
        for party in "abcd":
            for line in (self.out / party / "out/metrics.jsonl").read_text().splitlines():
                entry = json.loads(line)
                if "num_tokens" in entry:  # of a row, its label's letters and the end have loss
                    self.assertLessEqual(8 * 4, entry["num_tokens"])
                    self.assertLess(entry["num_tokens"] + 8 * 2, entry["num_input_tokens"])
                if "eval_accuracy" in entry:
                    self.assertEqual(entry["eval_examples"], 24)
                    own.setdefault(entry["step"], []).append(entry["eval_accuracy"])
                if "federation_eval_accuracy" in entry:
                    means.setdefault(entry["step"], set()).add(entry["federation_eval_accuracy"])
            result = json.loads((self.out / party / "out/result.json").read_text())
            best.add((result["best"]["step"], result["best"]["federation_mean"]))
            last = result["global_step"]
            self.assertTrue((self.out / party / f"out/checkpoint-{result['best']['step']}").is_dir())
        self.assertEqual(sorted(means), sorted(own))
        for step, found in means.items():
            self.assertEqual(len(found), 1, "all parties have the same mean")
            self.assertAlmostEqual(found.pop(), sum(own[step]) / 4)
        self.assertEqual(len(best), 1)
        step, value = best.pop()
        self.assertEqual(value, 1.0)  # it is an easy task
        self.assertEqual(last, step + 15, "three evaluations after the best one")


if __name__ == "__main__":
    main()
