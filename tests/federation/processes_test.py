# tests/federation/processes_test.py: federations of real processes: reproducible whatever the timing,
# whoever is killed when, in whatever order they start. `processes_test.py BINARY` runs it.
import json
import random
import subprocess
import sys
import time

from federation_runs import CONTINUE, PARTIES, STOP, FederationCase, main

FORWARD = ("begin", "expert_rows", "expert_outputs", "unit_weights", "masked_counts")
BACKWARD = ("row_gradients", "input_gradients", "exponents", "masked_gradients")


class ProcessCase(FederationCase):
    references = {}

    def finish(self, federation):
        codes = federation.wait()
        self.assertEqual(codes, dict.fromkeys(PARTIES, 0),
                         [federation.last_line(party) for party in PARTIES])

    def reference(self, **settings):
        """Checkpoints of an undisturbed run, each kind of run made once."""
        key = json.dumps(settings, sort_keys=True)
        cache = ProcessCase.references
        if key not in cache:
            with self.federation(f"reference-{len(cache)}", **settings) as quiet:
                quiet.start_all()
                self.finish(quiet)
                cache[key] = quiet.all_checkpoints()
        return cache[key]

    def assert_same(self, found, wanted):
        self.assertEqual(set(found), set(wanted))
        self.assertEqual([], [name for name in wanted if found[name] != wanted[name]])


    def assert_one_history(self, federation, max_steps):
        """The last checkpoints' log_history: every step once, then the evaluation, and the same
        figures as in metrics.jsonl."""
        for party in PARTIES:
            history = federation.trainer_state(party, max_steps)["log_history"]
            steps = [entry for entry in history if "loss" in entry]
            self.assertEqual([entry["step"] for entry in steps], list(range(1, max_steps + 1)))
            logged = {}
            for record in federation.metrics(party):
                if "loss" in record:
                    logged[record["step"]] = record
            for entry in steps:
                self.assertEqual(entry, {key: logged[entry["step"]][key] for key in entry})
            self.assertEqual(set(steps[0]), {"epoch", "grad_norm", "learning_rate", "loss", "step"})
            self.assertEqual([entry["step"] for entry in history if "eval_loss" in entry], [max_steps])
            self.assertEqual(len(history), max_steps + 1)


class Reproducible(ProcessCase):
    def test_bit_for_bit_whatever_the_timing(self):
        wanted = self.reference(max_steps=40)
        self.assertEqual(len(wanted), 16)  # two checkpoints, model and optimizer, four parties
        rng = random.Random(1)
        with self.federation("jolted", max_steps=40) as jolted:
            for party in PARTIES:
                jolted.start(party)
                time.sleep(rng.uniform(0, 0.3))
            for stop in range(6):
                party = rng.choice(PARTIES)
                jolted.wait_for_step(party, 5 * stop)
                jolted.signal(party, STOP)
                time.sleep(rng.uniform(0.1, 0.5))
                jolted.signal(party, CONTINUE)
            self.finish(jolted)
            self.assert_same(jolted.all_checkpoints(), wanted)

    def test_bit_for_bit_with_weights(self):
        wanted = self.reference(max_steps=20, exchange="weights")
        self.assertEqual(len(wanted), 24)  # and what is held for too few rows
        rng = random.Random(2)
        with self.federation("jolted-weights", max_steps=20, exchange="weights") as jolted:
            for party in reversed(PARTIES):
                jolted.start(party)
                time.sleep(rng.uniform(0, 0.3))
            for stop in range(4):
                party = rng.choice(PARTIES)
                jolted.wait_for_step(party, 4 * stop)
                jolted.signal(party, STOP)
                time.sleep(rng.uniform(0.1, 0.5))
                jolted.signal(party, CONTINUE)
            self.finish(jolted)
            self.assert_same(jolted.all_checkpoints(), wanted)

    def test_other_data_gives_other_weights(self):
        # So the equality above is not one of files that never change.
        wanted = self.reference(max_steps=40)
        with self.federation("other-seed", max_steps=40) as other:
            other.extra["a"] = ["training.data_seed=5"]
            other.start_all()
            self.finish(other)
            found = other.all_checkpoints()
        self.assertEqual(set(found), set(wanted))
        self.assertEqual([], [name for name in wanted if found[name] == wanted[name]])

    def test_round_robin(self):
        wanted = self.reference(max_steps=12, schedule="round_robin")
        with self.federation("again", max_steps=12, schedule="round_robin") as again:
            for party in reversed(PARTIES):
                again.start(party)
                time.sleep(0.2)
            self.finish(again)
            self.assert_same(again.all_checkpoints(), wanted)

    def test_a_party_without_data_and_one_without_experts(self):
        placement = self.root / "placement.json"
        placement.write_text(json.dumps(["b", "c", "d", "b", "c", "d", "b", "b"]))
        with self.federation("uneven", placement=placement) as uneven:
            uneven.extra["c"] = ["data.train=[]"]
            uneven.start_all()
            self.finish(uneven)
            self.assertTrue(all(loss == 0 for loss in uneven.losses("c")))
            self.assertTrue(all(loss > 0 for loss in uneven.losses("a")))
            self.assertLess(uneven.losses("a")[-1], uneven.losses("a")[0])
            sent = self.ledger_sums(uneven, "a")
            self.assertNotIn("expert_outputs", {line["kind"] for line in sent})

    def test_transformers_reads_trainer_state(self):
        from transformers.trainer_callback import TrainerState
        with self.federation("logged") as logged:
            logged.start_all()
            self.finish(logged)
            self.assert_one_history(logged, 12)
            state = TrainerState.load_from_json(
                str(logged.out("a") / "checkpoint-12" / "trainer_state.json"))
            self.assertEqual((state.global_step, state.max_steps), (12, 12))
            self.assertEqual([entry["loss"] for entry in state.log_history if "loss" in entry],
                             logged.losses("a"))
            self.assertGreater(state.epoch, 0)

    def ledger_sums(self, federation, party):
        ledger = federation.out(party) / "ledger.jsonl"
        out = subprocess.run([self.binary, "ledger", "show", ledger, "--json"], check=True,
                             capture_output=True, timeout=60)
        return json.loads(out.stdout)["sums"]

    def test_ledger_equals_wire(self):
        for exchange in ("rows", "weights"):
            with self.subTest(exchange):
                self.check_ledger_equals_wire(exchange)

    def check_ledger_equals_wire(self, exchange):
        with self.federation(f"counted-{exchange}", exchange=exchange) as counted:
            counted.start_all()
            self.finish(counted)
            for party in PARTIES:
                sums = self.ledger_sums(counted, party)
                released = sum(line["bytes"] for line in sums)
                # A party may leave before the others' last word reached it; nothing else may lack.
                last_word = sum(line["bytes"] for line in sums if line["kind"] == "bye") // 2
                missing = released - counted.result(party)["sent_bytes"]
                self.assertGreaterEqual(missing, 0)
                self.assertLessEqual(missing, last_word)
                self.assertEqual({line["to"] for line in sums}, set(PARTIES) - {party})


class Killed(ProcessCase):
    """kill -9 at moments that are chosen by stopping a process, looking at where it is, and killing
    it if that is the place."""

    STEPS = 60
    KILLS = 8

    def place_of(self, federation, party):
        if federation.is_writing(party):
            return "writing"
        kind = federation.last_sent_kind(party)
        if kind in FORWARD:
            return "forward"
        if kind in BACKWARD:
            return "backward"
        return {"vote": "commit", "hello": "meeting"}.get(kind, "other")

    def kill_at(self, federation, party, place, rng):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(rng.uniform(0, 0.004))
            if place != "anywhere" and self.place_of(federation, party) != place:
                continue
            federation.signal(party, STOP)
            found = self.place_of(federation, party)
            if place in ("anywhere", found):
                federation.kill(party)
                return found
            federation.signal(party, CONTINUE)
            if not federation.running(party):
                break
        self.fail(f"party {party} was never seen at {place}: {federation.last_line(party)}")

    def run_with_kills(self, seed, exchange):
        rng = random.Random(seed)
        places = ["forward", "backward", "commit", "writing", "meeting", "anywhere", "anywhere",
                  "commit"]
        rng.shuffle(places)
        killed = []
        with self.federation(f"killed-{exchange}-{seed}", max_steps=self.STEPS,
                             exchange=exchange) as federation:
            federation.start_all()
            for number, place in enumerate(places):
                victim = rng.choice(PARTIES)
                if place != "meeting":
                    federation.wait_for_step(victim, 1 + number * 6 + rng.randint(0, 3))
                elif number > 0:
                    other = rng.choice([party for party in PARTIES if party != victim])
                    federation.kill(other)
                    federation.start(other)
                killed.append(self.kill_at(federation, victim, place, rng))
                if number % 3 == 2:
                    for party in list(federation.processes):
                        federation.kill(party)
                for party in PARTIES:
                    if party not in federation.processes:
                        federation.start(party)
            self.finish(federation)
            self.assert_same(federation.all_checkpoints(), self.reference(max_steps=self.STEPS, exchange=exchange))
            self.assert_one_history(federation, self.STEPS)
            for party in PARTIES:
                subprocess.run([self.binary, "ledger", "verify", federation.out(party) / "ledger.jsonl"],
                               check=True, capture_output=True, timeout=60)
        return killed

    def test_rows_end_as_an_undisturbed_run(self):
        self.check_kills("rows")

    def test_weights_end_as_an_undisturbed_run(self):
        self.check_kills("weights")

    def check_kills(self, exchange):
        killed = []
        for seed in range(3):
            killed += self.run_with_kills(seed, exchange)
        counts = {place: killed.count(place) for place in sorted(set(killed))}
        print("killed at", counts, file=sys.stderr)
        self.assertGreaterEqual(len(killed), 20)
        for place in ("forward", "backward", "commit", "writing", "meeting"):
            self.assertIn(place, counts)


if __name__ == "__main__":
    main()
