# bench/figures/report.py: the page of a four-party comparison: small, asks for nothing, fits a phone.
# needs: pcmoe
"""A small `pcmoe sim` of four parties with comparisons writes its report.html. Headless Chromium opens it through
its DevTools pipe at 1200 and at 390 px, light and dark: every request must be for the file itself or a data: URL,
no exception or policy violation may be logged, every chart must be drawn, and the page must not be wider than
the window. Chromium is not needed for anything else: apt-get install chromium."""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import devtools
import federation
import lib

MAX_BYTES = 2_000_000
MODEL = federation.olmoe(64, 64, 4, 4, 8, 2)
TRAINING = {"learning_rate": 1e-3, "max_steps": 30, "sequence_length": 64, "per_device_train_batch_size": 4,
            "eval_steps": 10, "num_threads": 1}
VIEWS = [(width, scheme) for width in (1200, 390) for scheme in ("light", "dark")]
# What the page says of itself once it has been drawn.
PROBE = """JSON.stringify({
  width: document.documentElement.scrollWidth,
  charts: document.querySelectorAll('canvas[data-of]').length,
  drawn: [...document.querySelectorAll('canvas[data-of]')].filter((c) => Chart.getChart(c) &&
    c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v)).length})"""


def simulate(folder):
    """Runs the comparison; the sim's folder."""
    data = federation.demo_data()
    (folder / "config.json").write_text(json.dumps(MODEL))
    (folder / "run.toml").write_text(federation.to_toml({
        "model": {"model_name_or_path": "config.json", "tokenizer": str(data / "tokenizer.json")},
        "data": {"train": [str(data / "{party}/train.jsonl")], "eval": [str(data / "{party}/dev.jsonl")]},
        "training": TRAINING, "federation": {"min_rows": 0}}))
    subprocess.run([federation.PCMOE, "sim", "-n", "4", "--config", folder / "run.toml", "--out", folder / "sim",
                    "--compare", "central,aggregated,alone"], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=federation.DEADLINE_S)
    return folder / "sim"


def look(page, pictures):
    """What Chromium sees of the page, one line a view; pictures of it into the folder `pictures`, if any."""
    url = page.resolve().as_uri()
    seen = []
    with devtools.Browser() as browser:
        for width, scheme in VIEWS:
            browser.open(url, width, scheme)
            view = json.loads(browser.evaluate(PROBE))
            view.update(window=width, scheme=scheme, complaints=browser.complaints,
                        asked=[asked for asked in browser.requests
                               if asked != url and not asked.startswith("data:")])
            seen.append(view)
            if pictures:
                (pictures / f"{width}-{scheme}.png").write_bytes(browser.picture())
        if pictures:
            (pictures / "paper.pdf").write_bytes(browser.paper())
    return seen


def problems_of(view):
    return [text for text, there in [
        (f"asks for {view['asked']}", view["asked"]),
        (f"is {view['width']} px wide", view["width"] > view["window"]),
        (f"draws {view['drawn']} of {view['charts']} charts", view["drawn"] < view["charts"] or not view["charts"]),
        (f"complains: {view['complaints']}", view["complaints"])] if there]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", type=pathlib.Path, help="look at this page instead of a new sim's")
    parser.add_argument("--pictures", type=pathlib.Path, help="keep pictures of the page in this folder")
    arguments = parser.parse_args()
    if not devtools.chromium():
        print("bench: the figure report needs Chromium: apt-get install chromium", file=sys.stderr)
        return 4
    federation.PCMOE = lib.binary("pcmoe")
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        page = arguments.page or simulate(folder) / "report.html"
        size = page.stat().st_size
        views = look(page, arguments.pictures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    problems = [f"{view['window']} px, {view['scheme']}: {problem}" for view in views for problem in problems_of(view)]
    if size > MAX_BYTES:
        problems.append(f"{size} bytes")
    lib.table(["window", "scheme", "width", "charts drawn", "requests"],
              [[view["window"], view["scheme"], view["width"], f"{view['drawn']} of {view['charts']}",
                len(view["asked"])] for view in views])
    for problem in problems:
        print(problem)
    return lib.report("report", 0 if problems else 1, 1, "1 where all holds",
                      {"bytes": size, "problems": problems, "widths": {v["window"]: v["width"] for v in views},
                       "charts": views[0]["charts"]})


if __name__ == "__main__":
    sys.exit(main())
