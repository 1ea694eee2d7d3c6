# tests/federation/refusals_test.py: who is lost, wrong or mistaken is named in one sentence with the
# documented exit code, and no weight changes. `refusals_test.py BINARY` runs it.
import shutil
import socket
import sys
import time

from federation_runs import CONTINUE, KILL, PARTIES, STOP, TERMINATE, FederationCase, main

RUN_FAILED, CONNECTION, TIMEOUT, BAD_INPUT = 1, 2, 3, 4


class Refusals(FederationCase):
    def lose(self, number, reasons, victim="c"):
        """A running party gets signal `number`; the others stop, in seconds, naming it, and what is
        on anybody's disk stays as it was."""
        with self.federation(max_steps=5000, on_peer_loss="stop") as federation:
            federation.start_all()
            federation.wait_for_step(victim, 7)
            # Without the victim the others end the step that they are in at most: then all is still.
            federation.signal(victim, STOP)
            time.sleep(0.7)
            before = federation.all_checkpoints()
            begin = time.monotonic()
            federation.signal(victim, number)
            if number == TERMINATE:
                federation.signal(victim, CONTINUE)
            others = [party for party in PARTIES if party != victim]
            codes = federation.wait(others, patience=40)
            took = time.monotonic() - begin
            for party in others:
                line = federation.last_line(party)
                self.assertIn(codes[party], reasons, line)
                self.assertTrue(line.startswith(f"pcmoe: party {victim} "), line)
            if number == TERMINATE:
                self.assertEqual(federation.wait([victim])[victim], RUN_FAILED)
                self.assertIn("interrupted by a signal", federation.last_line(victim))
            self.assert_untouched(before, federation, may_end_its_step=number == TERMINATE)
            print(f"{self.id().rsplit('.', 1)[-1]}: {took:.1f} s; {line}", file=sys.stderr)
            self.assertLess(took, 20)

    def assert_untouched(self, before, federation, may_end_its_step):
        """Every tensor file that was there is there as it was; no other has come."""
        after = federation.all_checkpoints()
        self.assertGreaterEqual(len(before), 2 * len(PARTIES))  # weights and optimizer of each
        for party in PARTIES:
            self.assertEqual(set(), {step for step in self.steps_on_disk(federation, party)
                                     if step % 3 != 0 or step > federation.step(party)})
        if may_end_its_step:  # and cut a checkpoint then, for which an older one goes
            before = {name: digest for name, digest in before.items() if name in after}
            after = {name: digest for name, digest in after.items() if name in before}
            self.assertTrue(before)
        self.assertEqual(before, after)

    def steps_on_disk(self, federation, party):
        return {int(name.split("/")[1].removeprefix("checkpoint-"))
                for name in federation.checkpoints(party)}

    def test_a_killed_party_is_named_by_all(self):
        self.lose(KILL, [CONNECTION])

    def test_a_stopped_party_is_as_dead_as_a_killed_one(self):
        self.lose(STOP, [CONNECTION])

    def test_a_terminated_party_is_named_by_all(self):
        self.lose(TERMINATE, [RUN_FAILED, CONNECTION])

    def alone(self, federation, party, code, *words):
        """Starts one party, which must end with `code` and a sentence with all `words`."""
        federation.start(party)
        self.assertEqual(federation.wait([party], patience=60)[party], code,
                         federation.last_line(party))
        line = federation.last_line(party)
        self.assertTrue(line.startswith("pcmoe: "), line)
        for word in words:
            self.assertIn(word, line)

    def edit(self, federation, party, old, new):
        path = federation.folder / party / "party.toml"
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new))

    def test_what_a_party_can_see_by_itself(self):
        with self.federation() as federation:
            folder = federation.folder
            self.edit(federation, "a", "allow_readable_rows = true", "allow_readable_rows = false")
            self.alone(federation, "a", BAD_INPUT, "allow_readable_rows")
            self.edit(federation, "a", "allow_readable_rows = false", "alow_readable_rows = true")
            self.alone(federation, "a", BAD_INPUT, "alow_readable_rows",
                       "did you mean [border] allow_readable_rows?")
            self.edit(federation, "b", "[training]", "[training]\nmax_steps = 13")
            self.alone(federation, "b", BAD_INPUT, "max_steps is 13 here", "manifest says 12")
            (folder / "c" / "party.key").chmod(0o644)
            self.alone(federation, "c", BAD_INPUT, "party.key", "chmod 600")
            taken = socket.socket()
            with taken:
                taken.bind(("0.0.0.0", federation.ports["d"]))
                taken.listen()
                self.alone(federation, "d", BAD_INPUT, str(federation.ports["d"]))

    def test_a_policy_of_its_own_stops_a_step_before_the_byte_leaves(self):
        with self.federation(exchange="weights", on_peer_loss="stop") as federation:
            policy = federation.folder / "a" / "policy.toml"
            federation.extra["a"] = [f"border.policy={policy}"]
            policy.write_text('[forbid]\nb = ["masked_gradient"]\n')
            self.alone(federation, "a", BAD_INPUT, "policy.toml", "did you mean masked_gradients?")
            policy.write_text('[forbid]\nbb = ["vote"]\n')
            self.alone(federation, "a", BAD_INPUT, "policy.toml", 'no party "bb"')
            policy.write_text('[forbids]\nb = ["vote"]\n')
            self.alone(federation, "a", BAD_INPUT, "policy.toml", "did you mean forbid?")
            policy.write_text('[forbid]\nb = ["masked_gradients"]\n')
            federation.start_all()
            codes = federation.wait(patience=60)
            self.assertEqual(codes["a"], BAD_INPUT)
            self.assertIn("the border keeps masked_gradients from b", federation.last_line("a"))
            for party in ("b", "c", "d"):
                self.assertIn(codes[party], (RUN_FAILED, CONNECTION), federation.last_line(party))
                self.assertIn("party a", federation.last_line(party))
            ledger = (federation.out("a") / "ledger.jsonl").read_text().splitlines()
            sent = [line for line in ledger if '"kind":"masked_gradients"' in line]
            self.assertFalse([line for line in sent if '"to":"b"' in line])
            self.assertFalse(federation.all_checkpoints())

    def test_lines_that_are_not_text(self):
        with self.federation() as federation:
            bad = self.root / "bad.jsonl"
            federation.extra["a"] = [f"data.train={bad}"]
            good = b'{"text": "good"}\n'
            for line in (b'{"text": "\xff\xfe"}', b'{"text": ', b'{"txt": "x"}'):
                bad.write_bytes(good * 2 + line + b"\n" + good)
                self.alone(federation, "a", BAD_INPUT, "bad.jsonl:3")

    def test_a_party_of_another_authority_is_refused(self):
        with self.federation(rendezvous_timeout_s=6) as federation, \
                self.federation("stranger") as stranger:
            for name in ("ca.crt", "party.crt", "party.key"):
                shutil.copy2(stranger.folder / "d" / name, federation.folder / "d" / name)
            self.alone(federation, "d", CONNECTION, "party")

    def test_a_party_of_another_authority_is_named_by_the_others(self):
        # The same federation by id, addresses and settings: only the authority is another.
        with self.federation(rendezvous_timeout_s=8) as federation:
            strange = self.root / "strange"
            (strange / "ca").mkdir(parents=True)
            shutil.copy2(federation.folder / "ca" / "manifest.json", strange / "ca")
            federation.provision(strange)
            for file in (strange / "d").iterdir():
                if file.name != "party.toml":
                    shutil.copy2(file, federation.folder / "d")
            self.assertEqual((strange / "d" / "manifest.json").read_bytes(),
                             (federation.folder / "a" / "manifest.json").read_bytes())
            federation.start_all()
            codes = federation.wait(patience=60)
            for party in "abc":
                self.assertEqual(codes[party], CONNECTION, federation.last_line(party))
                self.assertIn("waited for d (d: its certificate is not good",
                              federation.last_line(party))
            self.assertIn(codes["d"], (CONNECTION, TIMEOUT), federation.last_line("d"))
            self.assertEqual(federation.all_checkpoints(), {})
            print(federation.last_lines(), file=sys.stderr)

    def test_a_party_with_anothers_key_is_refused(self):
        with self.federation() as federation:
            shutil.copy2(federation.folder / "a" / "party.key", federation.folder / "d" / "party.key")
            federation.start("d")
            self.assertIn(federation.wait(["d"])["d"], (CONNECTION, BAD_INPUT))
            self.assertIn("party.key", federation.last_line("d"))

    def test_a_changed_manifest_is_refused(self):
        with self.federation() as federation:
            path = federation.folder / "d" / "manifest.json"
            text = path.read_text()
            self.assertIn('"max_steps": 12', text)
            path.write_text(text.replace('"max_steps": 12', '"max_steps": 13'))
            federation.start("d")
            self.assertIn(federation.wait(["d"])["d"], (CONNECTION, BAD_INPUT))
            self.assertIn("manifest.json", federation.last_line("d"))

    def test_an_older_manifest_of_the_same_authority_is_refused_by_the_others(self):
        with self.federation(rendezvous_timeout_s=5) as federation:
            old = self.root / "old-d"
            shutil.copytree(federation.folder / "d", old)
            federation.provision_again("max_steps = 12", "max_steps = 14")
            for name in ("manifest.json", "manifest.json.sig", "manifest.sig"):
                if (old / name).exists():
                    shutil.copy2(old / name, federation.folder / "d" / name)
            federation.start_all()
            codes = federation.wait(patience=60)
            for party in PARTIES:
                self.assertEqual(codes[party], CONNECTION, federation.last_line(party))
                self.assertIn("manifest" if party == "d" else "d", federation.last_line(party))
                self.assertEqual(federation.checkpoints(party), {})
            print(federation.last_lines(), file=sys.stderr)


if __name__ == "__main__":
    main()
