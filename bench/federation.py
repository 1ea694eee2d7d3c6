"""Runs a federation, or a central run, of the release build and reads its result.json files."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import forwarder
import lib

ROOT = lib.ROOT
PCMOE = lib.BUILD / "bin/pcmoe"
PROXY = lib.BUILD / "bin/link_proxy"
PARTIES = ["a", "b", "c", "d"]
DEADLINE_S = 600


def demo_data():
    """The folder of the demo's data, made if it is not there."""
    data = ROOT / "demo/data"
    subprocess.run([ROOT / ".venv/bin/python", ROOT / "tools/make_demo_data.py", data], check=True,
                   stdout=subprocess.DEVNULL)
    return data


def olmoe(hidden, expert_width, layers, heads, experts, top_k, vocab=2048, positions=512):
    return {"model_type": "olmoe", "vocab_size": vocab, "hidden_size": hidden,
            "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": heads, "intermediate_size": expert_width,
            "num_experts": experts, "num_experts_per_tok": top_k,
            "max_position_embeddings": positions, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "norm_topk_prob": False, "router_aux_loss_coef": 0.01, "output_router_logits": True,
            "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02,
            "attention_bias": False, "pad_token_id": None}


def to_toml(tables):
    def value(v):
        if isinstance(v, bool):
            return str(v).lower()
        return json.dumps(v)
    return "\n".join("[%s]\n" % name + "".join("%s = %s\n" % (k, value(v)) for k, v in table.items())
                     for name, table in tables.items())


def _environment(threads):
    # Spinning threads of a busy machine would measure the spinning; `pcmoe sim` sets the same.
    return dict(os.environ, OMP_NUM_THREADS=str(threads), GOMP_SPINCOUNT="1000")


def central(model, training, threads):
    """One party with everybody's data; returns its result."""
    data = demo_data()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps(model))
        (folder / "run.toml").write_text(to_toml({
            "model": {"model_name_or_path": "config.json",
                      "tokenizer": str(data / "tokenizer.json")},
            "data": {"train": [str(data / p / "train.jsonl") for p in PARTIES]},
            "training": dict(training, num_threads=threads),
            "run": {"identity": "none", "output_dir": "out"}}))
        subprocess.run([PCMOE, "train", "--config", folder / "run.toml"], check=True,
                       env=_environment(threads), stderr=subprocess.DEVNULL, timeout=DEADLINE_S)
        return json.loads((folder / "out/result.json").read_text())


def provision(folder, model, training, exchange="rows", settings=None, threads=1,
              first_port=7800):
    """Writes config, keys and manifest of four parties into folder / "fed"; each is dialled at
    127.0.0.1, from first_port on. `settings`: more keys of [federation]."""
    data = demo_data()
    (folder / "config.json").write_text(json.dumps(model))
    rows = exchange == "rows"
    (folder / "federation.toml").write_text(to_toml({
        "model": {"model_name_or_path": "config.json", "tokenizer": str(data / "tokenizer.json")},
        "training": dict(training, num_threads=threads),
        "federation": dict({"exchange": exchange}, **(settings or {})),
        **({"border": {"allow_readable_rows": True}} if rows else {}),
        "run": {"on_peer_loss": "stop"}}))
    command = [PCMOE, "provision", "--config", folder / "federation.toml", "--parties",
               ",".join(PARTIES), "--out", folder / "fed"]
    for i, party in enumerate(PARTIES):
        command += ["--address", f"{party}=127.0.0.1:{first_port + i}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def start_proxy(link, first_port):
    """link_proxy before every party: 127.0.0.1:port to 127.0.0.2:port."""
    links = []
    for i in range(len(PARTIES)):
        links += ["--link", f"{first_port + i}=127.0.0.2:{first_port + i}"]
    proxy = subprocess.Popen([PROXY, "--delay-ms", str(link[0]), "--mbit", str(link[1]), *links],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if not proxy.stdout.readline():
        raise RuntimeError("link_proxy did not start")
    return proxy


def federation(model, training, exchange="rows", settings=None, threads=1, first_port=7800,
               link=None, count_sockets=False):
    """Four parties as processes; `link` = (one-way ms, Mbit/s) puts a proxy before every party,
    `count_sockets` a forwarder that counts bytes. `settings`: more keys of [federation].

    Returns (results by party, metrics lines by party); with count_sockets the bytes as well."""
    data = demo_data()
    folder = pathlib.Path(tempfile.mkdtemp())
    processes, proxy, forwarders = [], None, []
    try:
        provision(folder, model, training, exchange, settings, threads, first_port)
        if link:
            proxy = start_proxy(link, first_port)
        if count_sockets:
            forwarders = [forwarder.Forwarder(first_port + i) for i in range(len(PARTIES))]
        listen = "127.0.0.2" if link or count_sockets else "127.0.0.1"
        for party in PARTIES:
            home = folder / "fed" / party
            log = open(home / "log", "w")
            processes.append(subprocess.Popen(
                [PCMOE, "train", "--config", home / "party.toml",
                 "--set", f"data.train={data / party / 'train.jsonl'}",
                 "--set", f"run.listen={listen}"], env=_environment(threads), stderr=log))
        codes = [process.wait(timeout=DEADLINE_S) for process in processes]
        if any(codes):
            logs = [(folder / "fed" / party / "log").read_text().splitlines() for party in PARTIES]
            raise RuntimeError("; ".join(f"party {party}: {log[-1] if log else 'no output'}"
                                         for party, log in zip(PARTIES, logs)))
        out = [folder / "fed" / p / "out" for p in PARTIES]
        results = [json.loads((o / "result.json").read_text()) for o in out]
        metrics = [[json.loads(line) for line in (o / "metrics.jsonl").read_text().splitlines()]
                   for o in out]
        if count_sockets:
            return results, metrics, sum(f.bytes for f in forwarders)
        return results, metrics
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        if proxy:
            proxy.kill()
            proxy.wait()
        for one in forwarders:
            one.listener.close()
        shutil.rmtree(folder, ignore_errors=True)


def plan(model, *arguments):
    """The object that `pcmoe plan` prints for four parties."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "config.json"
        path.write_text(json.dumps(model))
        return lib.run_json([PCMOE, "plan", path, "-n", len(PARTIES), "--json", *arguments])


def tokens_per_s(results):
    return sum(result["tokens_per_s"] for result in results)
