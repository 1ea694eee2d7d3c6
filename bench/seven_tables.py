# bench/seven_tables.py: what the runs of the figure `seven` came to, as tables.
import statistics

import lib
import seven_runs


def mean_over(runs, mode, tasks, key="mean_accuracy"):
    """Mean over tasks of the mean over seeds, in points; None when a task is missing."""
    by_task = []
    for task in tasks:
        found = [r[key] for r in runs if r["mode"] == mode and r["task"] == task and key in r]
        if not found:
            return None
        by_task.append(100 * statistics.mean(found))
    return statistics.mean(by_task)


def _point(value, digits=1):
    return "-" if value is None else f"{value:.{digits}f}"


def _means(runs, mode, tasks, key="mean_accuracy"):
    return [_point(mean_over(runs, mode, [task], key)) for task in tasks]


def _modes(runs, key="mean_accuracy"):
    """(name, mode, its runs) of those that have any."""
    for name, mode in seven_runs.MODES.items():
        mine = [r for r in runs if r["mode"] == name and key in r]
        if mine:
            yield name, mode, mine


def show(runs, tasks):
    """Dev: accuracy with its spread over parties and seeds, and what it cost."""
    rows = []
    for name, _, mine in _modes(runs):
        cells = []
        for task, mean in zip(tasks, _means(runs, name, tasks)):
            spread = [100 * a for r in mine if r["task"] == task for a in r["accuracy"].values()]
            cells.append(f"{mean} ({min(spread):.1f}-{max(spread):.1f})" if len(spread) > 1 else mean)
        steps = [r["steps_to_95"] for r in mine if r["steps_to_95"]]
        rows.append([name, *cells, _point(mean_over(runs, name, tasks)),
                     f"{statistics.mean(steps):.0f}" if len(steps) == len(mine) else "-",
                     f"{max(r['states_bytes'] for r in mine) / 1e6:.1f}",
                     f"{max(r['peak_resident_bytes'] for r in mine) / 1e6:.0f}",
                     f"{statistics.mean(r['sent_bytes'] for r in mine) / 1e9:.2f}",
                     f"{sum(r['wall_s'] for r in mine):.0f}"])
    lib.table(["mode", *tasks, "mean", "steps to 95 %", "states MB", "peak MB", "sent GB a run", "s"], rows)


def show_test(runs, tasks):
    """The test files' accuracy, where runs were evaluated on them."""
    rows = [[name, *_means(runs, name, tasks, "test_accuracy"),
             _point(mean_over(runs, name, tasks, "test_accuracy"))] for name, _, _ in _modes(runs, "test_accuracy")]
    if rows:
        print("on the test files:")
        lib.table(["mode", *tasks, "mean"], rows)


def markdown(runs, tasks):
    """README's table: means over parties and seeds, and the means of single seeds from lowest to highest."""
    lines = [["mode", *tasks, "mean (of a seed)", "seeds"], ["---"] * (len(tasks) + 3)]
    for name, mode, mine in _modes(runs):
        seeds = sorted({r["seed"] for r in mine})
        by_seed = [mean_over([r for r in mine if r["seed"] == seed], name, tasks) for seed in seeds]
        whole = [value for value in by_seed if value is not None]
        spread = f" ({min(whole):.1f}-{max(whole):.1f})" if len(whole) > 1 else ""
        lines.append([mode.description, *_means(runs, name, tasks),
                      _point(mean_over(runs, name, tasks), 2) + spread, str(len(seeds))])
    tfidf = [seven_runs.TFIDF[task] for task in tasks]
    lines.append(["tf-idf with logistic regression, all rows", *map(_point, tfidf),
                  _point(statistics.mean(tfidf), 2), "-"])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
