# bench/seven_runs.py: the runs of the figure `seven`: a base, then a mode on a task with a seed, each a
# folder and, once done, a line of results.
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import federation
import lib
import seven_data
import seven_kinds

TASKS = ("trec", "cr", "mr", "mpqa", "subj", "sst2", "sst5")
# scikit-learn's tf-idf (1-2 grams) with logistic regression on the same rows and dev files.
TFIDF = {"mr": 75.4, "sst5": 40.5, "sst2": 77.9, "subj": 90.4, "trec": 85.6, "cr": 80.7, "mpqa": 82.2}
MODEL = {"model_type": "olmoe", "architectures": ["OlmoeForCausalLM"], "vocab_size": seven_data.VOCABULARY,
         "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
         "intermediate_size": 128, "num_experts": 8, "num_experts_per_tok": 2,
         "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
         "norm_topk_prob": True, "router_aux_loss_coef": 0.01, "output_router_logits": True,
         "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02,
         "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None, "pad_token_id": None,
         "eos_token_id": 0, "use_cache": False}
BASE_STEPS, BASE_BATCH, BASE_SEQUENCE, BASE_RATE = 3000, 32, 128, 3e-3
# Standard deviation of the vectors that the embedding starts from; training moves an entry by 0.13 (root mean square).
VECTORS_STD = 0.3
LABELS_BATCH = 128
KINDS_STEPS, KINDS_RATE = 800, 1e-3
OPINION_STEPS, OPINION_RATE = 250, 7e-4
EPOCHS, LEAST_STEPS, BATCH, LONGEST = 2, 120, 32, 128
# Of a run of central and all, whose convergence is compared; the others: half as many, seed 1 only. A run of the
# grid (seed 0): one, at its end.
EVALUATIONS = 8
GRID = (2e-3, 4e-3)
DEADLINE_S = 3600
PCMOE = None


@dataclasses.dataclass(frozen=True)
class Mode:
    description: str
    kind: str = "federated"  # or central, alone, alone_fits
    federation: dict = dataclasses.field(default_factory=dict)
    three_seeds: bool = False
    rates_of: str = ""  # whose learning rate it has: the same mathematics, or nearly
    evaluations: int = EVALUATIONS // 2


def _weights(backbone, embedding, head, **more):
    return {"exchange": "weights", "backbone": backbone, "embedding": embedding, "head": head,
            "keep_fetched_weights": True, **more}


_ONE_RATE = {"private_lr_scale": 1.0, "expert_lr_scale": 1.0}

MODES = {
    "central": Mode("central: one model, all parties' rows", kind="central", three_seeds=True, evaluations=EVALUATIONS),
    "all": Mode("`weights`, everything aggregated, `min_rows = 0`",
                federation=_weights("aggregated", "aggregated", "aggregated", min_rows=0),
                three_seeds=True, rates_of="central", evaluations=EVALUATIONS),
    # Rows this short give an expert fewer rows a step than the default bound asks for (512 at this width).
    "all_bound": Mode("`weights`, everything aggregated, `min_rows` by default",
                      federation=_weights("aggregated", "aggregated", "aggregated"),
                      rates_of="central", evaluations=EVALUATIONS),
    "default": Mode("`weights`, the default (backbone aggregated, embedding frozen, head private)",
                    federation=_weights("aggregated", "frozen", "private"), three_seeds=True),
    "both_private": Mode("`weights`, backbone aggregated, embedding and head private",
                         federation=_weights("aggregated", "private", "private"), rates_of="default"),
    "private_best": Mode("`weights`, private backbone that stays as it was, experts at twice the rate",
                         federation=_weights("private", "frozen", "private", private_lr_scale=0.0,
                                             expert_lr_scale=2.0),
                         three_seeds=True),
    # The same but for the clip, which counts no gradients of what is frozen.
    "frozen": Mode("`weights`, backbone and embedding frozen (experts at twice the rate by default)",
                   federation=_weights("frozen", "frozen", "private"), rates_of="private_best"),
    "weights_private": Mode("`weights`, the paper's private backbone and embedding",
                            federation=_weights("private", "private", "private", **_ONE_RATE),
                            rates_of="rows_private"),
    "rows_private": Mode("`rows`, private backbone and embedding at the full rate (the paper)",
                         federation={"exchange": "rows", "embedding": "private", **_ONE_RATE},
                         three_seeds=True),
    "round_robin": Mode("`rows`, the paper's, one party a step",
                        federation={"exchange": "rows", "schedule": "round_robin", "embedding": "private",
                                     **_ONE_RATE},
                        rates_of="rows_private"),
    "alone": Mode("each party alone, the whole model", kind="alone", three_seeds=True),
    "alone_fits": Mode("each party alone, the two experts that fit", kind="alone_fits",
                       rates_of="alone"),
}


def _environment(threads):
    return dict(os.environ, OMP_NUM_THREADS=str(threads), GOMP_SPINCOUNT="1000")


def _read_json(path):
    return json.loads(path.read_text())


class Work:
    """A folder of runs, of which those from its own base count. One process at a time."""

    def __init__(self, data, out, test, fixed_rate=None):
        self.data, self.out, self.test, self.fixed_rate = data.resolve(), out.resolve(), test, fixed_rate

    # -- what all runs start from

    def prepare(self):
        seven_data.public_text(self.data, self.out)
        seven_kinds.public_rows(self.data, self.out)
        if not (self.out / "base/model.safetensors").exists():
            self._train_base()
        if not (self.out / "base_fits/model.safetensors").exists():
            self._cut_base(MODEL["num_experts"] // len(seven_data.PARTIES))

    def _train_base(self):
        """Three runs: the language, from word vectors, then to name what a text is about, then which words
        praise and which blame."""
        tokenizer = str(self.out / "tokenizer.json")
        scratch = self.out / "base_run"
        scratch.mkdir(exist_ok=True)
        (scratch / "config.json").write_text(json.dumps(MODEL))
        text = {"train": [str(self.out / "public.jsonl")]}
        training = {"learning_rate": BASE_RATE, "warmup_steps": 50, "max_steps": BASE_STEPS,
                    "sequence_length": BASE_SEQUENCE, "per_device_train_batch_size": BASE_BATCH}
        random_start = self._base_run(
            "random", {"model_name_or_path": str(scratch / "config.json"), "tokenizer": tokenizer}, text,
            dict(training, learning_rate=1e-9, warmup_steps=1, max_steps=1))
        start = self._with_word_vectors(random_start)
        language = self._base_run(
            "language", {"model_name_or_path": str(start), "tokenizer": tokenizer}, text, training)
        kinds = self._labels_run("kinds", language, KINDS_STEPS, KINDS_RATE)
        opinion = self._labels_run("opinion", kinds, OPINION_STEPS, OPINION_RATE)
        partial = self.out / "base.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(opinion / name, partial / name)
        shutil.copy(self.out / "tokenizer.json", partial)
        partial.rename(self.out / "base")

    def _labels_run(self, name, model, steps, rate):
        """The folder of `model` after training on the public rows with labels of that name."""
        return self._base_run(
            name, {"model_name_or_path": str(model), "tokenizer": str(self.out / "tokenizer.json")},
            {"train": [str(self.out / f"{name}.jsonl")], "batching": "group_by_length"},
            {"learning_rate": rate, "warmup_steps": steps // 20, "max_steps": steps,
             "sequence_length": BASE_SEQUENCE, "per_device_train_batch_size": LABELS_BATCH})

    def _with_word_vectors(self, model):
        """The folder of that model with an embedding of word vectors."""
        from safetensors.torch import load_file, save_file
        import seven_vectors
        folder = self.out / "base_run/start"
        if not (folder / "model.safetensors").exists():
            folder.mkdir(exist_ok=True)
            shutil.copy(model / "config.json", folder)
            tensors = load_file(model / "model.safetensors")
            vectors_vd = seven_vectors.word_vectors(self.out, MODEL["hidden_size"])
            tensors["model.embed_tokens.weight"] = VECTORS_STD * vectors_vd
            save_file(tensors, folder / "partial", metadata={"format": "pt"})
            (folder / "partial").rename(folder / "model.safetensors")
        return folder

    def _base_run(self, name, model, data, training):
        """The folder of the last checkpoint of a run, which a second call finds again."""
        folder = self.out / "base_run" / name
        checkpoint = folder / f"out/checkpoint-{training['max_steps']}"
        if not (checkpoint / "model.safetensors").exists():
            folder.mkdir(exist_ok=True)
            (folder / "run.toml").write_text(federation.to_toml({
                "model": model, "data": data,
                "training": {"lr_scheduler_type": "cosine", "weight_decay": 0.01, "seed": 1, "num_threads": 2,
                             "precision": "fp32", "logging_steps": 20, "save_steps": 1000, **training},
                "run": {"identity": "none", "output_dir": "out"}}))
            subprocess.run([PCMOE, "train", "--config", folder / "run.toml"], check=True, env=_environment(2))
        return checkpoint

    def _cut_base(self, experts):
        """The base with the first `experts` experts of a layer: what one party's memory holds."""
        from safetensors.numpy import load_file, save_file
        tensors = {}
        for name, tensor in load_file(self.out / "base/model.safetensors").items():
            parts = name.split(".")
            if "experts" in parts and int(parts[parts.index("experts") + 1]) >= experts:
                continue
            tensors[name] = tensor[:experts] if name.endswith("mlp.gate.weight") else tensor
        folder = self.out / "base_fits"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(dict(MODEL, num_experts=experts)))
        shutil.copy(self.out / "tokenizer.json", folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    # -- results

    @functools.cached_property
    def base_digest(self):
        """Of the weights that all runs start from, the first 16 hexadecimal digits of their SHA-256."""
        return hashlib.sha256((self.out / "base/model.safetensors").read_bytes()).hexdigest()[:16]

    def _file(self, mode, task, seed, rate=None):
        name = f"{mode}-{task}-{seed}" + ("" if rate is None else f"-lr{rate:g}")
        return self.out / "results" / f"{name}.json"

    def _result(self, path):
        """The line of a run from this base, or None."""
        line = _read_json(path) if path.exists() else None
        return line if line is not None and line.get("base") == self.base_digest else None

    def take_over(self, file):
        """From a file of lines those runs that are not here and start from this base; says how many."""
        lines = seven_data.read_rows(file)
        mine = [line for line in lines if line.get("base") == self.base_digest]
        for line in mine:
            path = self._file(line["mode"], line["task"], line["seed"],
                              line["learning_rate"] if line["seed"] == 0 else None)
            if self._result(path) is None:
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(line, indent=1))
        print(f"seven: {len(mine)} of the {len(lines)} runs in {file} start from this base ({self.base_digest})",
              file=sys.stderr, flush=True)

    def is_done(self, mode, task, seed):
        """With a folder of test files: and was evaluated on its test file, too."""
        line = self._result(self._file(mode, task, seed))
        return line is not None and (self.test is None or "test_accuracy" in line)

    def test_file(self, task):
        """Of a task in the folder of test files; None without such a folder."""
        if self.test is None:
            return None
        places = [self.test / f"{task}.jsonl", self.test / task / "test.jsonl",
                  self.test / "benchmarks" / task / "test.jsonl"]
        found = [place for place in places if place.is_file()]
        if not found:
            sys.exit(f"seven: --test {self.test} has no test file of {task}; it looked for "
                     + ", ".join(str(place.relative_to(self.test)) for place in places))
        return found[0].resolve()

    def _all_lines(self):
        return [line for path in sorted((self.out / "results").glob("*.json")) if (line := self._result(path))]

    def results(self):
        """All runs but the grid's."""
        runs = [line for line in self._all_lines() if line["seed"] > 0]
        final = {(r["task"], r["seed"]): r["mean_accuracy"] for r in runs if r["mode"] == "central"}
        for run in runs:
            target = final.get((run["task"], run["seed"]))
            # A run that was evaluated at its end only has no curve to read it from.
            run["steps_to_95"] = (_steps_to(run["curve"], 0.95 * target)
                                  if target and len(run["curve"]) > 1 else None)
        return runs

    def _made_with(self, runs):
        """What a reader needs to tell these runs from others."""
        rates = {}
        for run in runs:
            rates.setdefault(f"{run['learning_rate']:g}", set()).add(run["mode"])
        return {"base, SHA-256 of its weights (16 digits)": self.base_digest,
                "processor": ", ".join(sorted({run["cpu"] for run in runs})),
                **{f"learning rate {rate}": ", ".join(name for name in MODES if name in modes)
                   for rate, modes in sorted(rates.items())}}

    def write_summary(self, runs, figures, tasks):
        there = {run["mode"] for run in runs}
        described = [{"name": name, "description": mode.description.replace("`", "")}
                     for name, mode in MODES.items() if name in there]
        (self.out / "seven.json").write_text(json.dumps({
            "title": "Seven benchmarks: federation, central and alone", "tasks": tasks, "modes": described,
            "runs": runs, "figures": figures,
            "commands": ["bench/run seven --data DIR", "pcmoe report " + self.out.name],
            "made_with": self._made_with(runs),
            "notes": [f"{name}: {f['detail']['also']}" for name, f in figures.items() if "also" in f["detail"]] + [
                f"{name} does not count as reached: {f['detail']['incomplete']}"
                for name, f in figures.items() if "incomplete" in f["detail"]] + [
                f"{EPOCHS} passes over the rows and at least {LEAST_STEPS} steps, {BATCH} rows a party and step; dev; "
                "curves are of seed 1 where later seeds were evaluated at their end only"]},
            indent=1))
        seven_data.write_jsonl(self.out / "runs.jsonl", self._all_lines())
        subprocess.run([PCMOE, "report", self.out], check=False, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    # -- one run

    def rate(self, mode):
        """The grid's best for a mode, by the mean accuracy over all tasks at seed 0."""
        if self.fixed_rate is not None:
            return self.fixed_rate
        mode = MODES[mode].rates_of or mode
        sums = dict.fromkeys(GRID, 0)
        for rate in GRID:
            for task in TASKS:
                file = self._file(mode, task, 0, rate)
                if self._result(file) is None:
                    self._run(mode, task, 0, rate, file)
                sums[rate] += self._result(file)["mean_accuracy"]
        return max(sums, key=sums.get)

    def run(self, mode, task, seed):
        self._run(mode, task, seed, self.rate(mode), self._file(mode, task, seed))

    def _run(self, mode, task, seed, rate, result):
        rows = seven_data.deal(self.data, task, self.out / "data" / task)
        evals = [str(self.data / "benchmarks" / task / "dev.jsonl")]
        if self.test is not None and seed > 0:  # seed 0 chooses rates, on dev alone
            evals.append(str(self.test_file(task)))
        steps = max(LEAST_STEPS, EPOCHS * rows // (BATCH * len(seven_data.PARTIES)))
        begin = time.monotonic()
        folder = self.out / "runs" / f"{mode}-{task}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        outputs = _START[MODES[mode].kind](self, MODES[mode], folder, task, seed, rate, steps, evals)
        line = _collect(outputs, evals, steps)
        line.update(mode=mode, task=task, seed=seed, learning_rate=rate, steps=steps, base=self.base_digest,
                    cpu=lib.machine()["cpu"],
                    rate_from="grid" if self.fixed_rate is None else "--rate",
                    wall_s=round(time.monotonic() - begin, 1))
        result.parent.mkdir(exist_ok=True)
        result.write_text(json.dumps(line, indent=1))
        self._keep_page(folder, result.stem)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{mode} {task} seed {seed} lr {rate:g}: {100 * line['mean_accuracy']:.1f} % "
              f"({line['wall_s']:.0f} s)", file=sys.stderr, flush=True)

    def _keep_page(self, folder, name):
        """Of a federation or a central run: its own report, with bytes by kind and peer, memory as planned and
        router load."""
        for page in (folder / "sim/report.html", folder / "out/report.html"):
            if page.exists():
                (self.out / "reports").mkdir(exist_ok=True)
                page.replace(self.out / "reports" / f"{name}.html")

    def _config(self, mode, task, seed, rate, steps, evals, train, base, threads, **more):
        robin = mode.federation.get("schedule") == "round_robin"
        steps *= len(seven_data.PARTIES) if robin else 1
        evaluations = mode.evaluations if seed == 1 or (seed > 1 and mode.evaluations == EVALUATIONS) else 1
        return {"model": {"model_name_or_path": str(self.out / base),
                          "tokenizer": str(self.out / "tokenizer.json")},
                "data": {"train": train, "eval": evals, "batching": "group_by_length"},
                "training": {"learning_rate": rate, "lr_scheduler_type": "cosine",
                             "warmup_steps": steps // 20, "max_steps": steps,
                             "eval_steps": -(-steps // evaluations), "sequence_length": LONGEST,
                             "per_device_train_batch_size": BATCH, "weight_decay": 0.01, "seed": seed,
                             "num_threads": threads, "logging_steps": 20,
                             **more}}

    def _train(self, folder, config):
        folder.mkdir(parents=True, exist_ok=True)
        config["run"] = {"identity": "none", "output_dir": "out"}
        (folder / "run.toml").write_text(federation.to_toml(config))
        with open(folder / "log", "w") as log:
            return subprocess.Popen([PCMOE, "train", "--config", folder / "run.toml"], stderr=log,
                                    env=_environment(config["training"]["num_threads"]))

    def _start_central(self, mode, folder, task, seed, rate, steps, evals):
        train = [str(self.out / "data" / task / p / "train.jsonl") for p in seven_data.PARTIES]
        _wait({"all": self._train(folder, self._config(mode, task, seed, rate, steps, evals, train, "base", 2))})
        return {"all": folder / "out"}

    def _start_alone(self, mode, folder, task, seed, rate, steps, evals):
        base = "base_fits" if mode.kind == "alone_fits" else "base"
        processes = {}
        for i, party in enumerate(seven_data.PARTIES):
            train = [str(self.out / "data" / task / party / "train.jsonl")]
            config = self._config(mode, task, seed, rate, steps, evals, train, base, 1, data_stream=i)
            processes[party] = self._train(folder / party, config)
        _wait(processes)
        return {party: folder / party / "out" for party in seven_data.PARTIES}

    def _start_federated(self, mode, folder, task, seed, rate, steps, evals):
        train = [str(self.out / "data" / task / "{party}" / "train.jsonl")]
        config = self._config(mode, task, seed, rate, steps, evals, train, "base", 1)
        config["federation"] = dict(mode.federation)
        config["border"] = {"allow_readable_rows": mode.federation["exchange"] == "rows"}
        config["run"] = {"on_peer_loss": "stop"}
        (folder / "run.toml").write_text(federation.to_toml(config))
        subprocess.run([PCMOE, "sim", "-n", str(len(seven_data.PARTIES)), "--config", folder / "run.toml",
                        "--out", folder / "sim"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=DEADLINE_S, env=_environment(1))
        return {party: folder / "sim" / party / "out" for party in seven_data.PARTIES}


_START = {"central": Work._start_central, "alone": Work._start_alone, "alone_fits": Work._start_alone,
          "federated": Work._start_federated}


def _wait(processes):
    try:
        for name, process in processes.items():
            if process.wait(timeout=DEADLINE_S) != 0:
                sys.exit(f"seven: the run of {name} failed with exit code {process.returncode}")
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()


def _collect(outputs, evals, steps):
    """What the runs of all parties came to: accuracy of each, the mean's curve, memory, bytes."""
    results = {party: _read_json(out / "result.json") for party, out in outputs.items()}
    curves, losses = {}, {}
    for out in outputs.values():
        for text in (out / "metrics.jsonl").read_text().splitlines():
            entry = json.loads(text)
            if entry.get("eval") == evals[0]:
                curves.setdefault(entry["step"], []).append(entry["eval_accuracy"])
                losses.setdefault(entry["step"], []).append(entry["eval_loss"])
    scale = steps / max(curves)  # round_robin has more, smaller steps
    accuracy = {party: result["eval"][evals[0]]["eval_accuracy"] for party, result in results.items()}
    line = {"accuracy": accuracy, "mean_accuracy": sum(accuracy.values()) / len(accuracy),
            "curve": _mean_curve(curves, scale), "loss_curve": _mean_curve(losses, scale),
            "states_bytes": max(r["states_bytes"] for r in results.values()),
            "peak_resident_bytes": max(r["peak_resident_bytes"] for r in results.values()),
            "sent_bytes": sum(r["sent_bytes"] for r in results.values())}
    if len(evals) > 1:
        line["test"] = {party: result["eval"][evals[1]]["eval_accuracy"] for party, result in results.items()}
        line["test_accuracy"] = sum(line["test"].values()) / len(outputs)
    return line


def _mean_curve(values_by_step, scale):
    """[step, mean over the parties], the steps times `scale`."""
    return [[step * scale, sum(values) / len(values)] for step, values in sorted(values_by_step.items())]


def _steps_to(curve, target):
    """The first step at which a curve reaches the target, between two evaluations by a straight line."""
    before = [0, 0.0]
    for step, accuracy in curve:
        if accuracy >= target:
            rise = accuracy - before[1]
            return round(before[0] + (step - before[0]) * ((target - before[1]) / rise if rise > 0 else 1), 1)
        before = [step, accuracy]
    return None
