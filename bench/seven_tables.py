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


def _accuracies(mine, task):
    """"88.2 (86.7-89.6)": the mean over parties and seeds of a mode's runs, the lowest and the highest of them."""
    values = [100 * accuracy for r in mine if r["task"] == task for accuracy in r["accuracy"].values()]
    if not values:
        return "-"
    mean = _point(100 * statistics.mean(r["mean_accuracy"] for r in mine if r["task"] == task))
    lowest, highest = _point(min(values)), _point(max(values))
    return f"{mean} ({lowest}-{highest})" if lowest != highest else mean


def _steps(mine, tasks):
    """The mean over the tasks of the steps to 95 % of central's accuracy, of the runs with a curve; how many
    tasks get there, if not all do: a mean over those alone would be one of the easier tasks."""
    by_task = []
    with_curve = [r for r in mine if len(r["curve"]) > 1]
    if not with_curve:
        return "-"
    for task in tasks:
        steps = [r["steps_to_95"] for r in with_curve if r["task"] == task]
        by_task.append(statistics.mean(steps) if steps and all(steps) else None)
    there = [steps for steps in by_task if steps is not None]
    return f"{statistics.mean(there):.0f}" if len(there) == len(tasks) else f"in {len(there)} of {len(tasks)} tasks"


COSTS = ["steps to 95 %", "states MB", "peak MB", "sent GB", "seconds"]


def _costs(mine, tasks):
    """Means over a mode's runs. Memory: of the largest process of a run; sent: by all parties of a run together."""
    def mean(key):
        return statistics.mean(r[key] for r in mine)
    return [_steps(mine, tasks), f"{mean('states_bytes') / 1e6:.1f}", f"{mean('peak_resident_bytes') / 1e6:.0f}",
            f"{mean('sent_bytes') / 1e9:.2f}" if mean("sent_bytes") else "-", f"{mean('wall_s'):.0f}"]


def show(runs, tasks):
    """Dev: accuracy with its spread over parties and seeds, and what a run cost."""
    rows = [[name, *(_accuracies(mine, task) for task in tasks), _point(mean_over(runs, name, tasks)),
             *_costs(mine, tasks)] for name, _, mine in _modes(runs)]
    lib.table(["mode", *tasks, "mean", *COSTS], rows)


def show_test(runs, tasks):
    """The test files' accuracy, where runs were evaluated on them."""
    rows = [[name, *_means(runs, name, tasks, "test_accuracy"),
             _point(mean_over(runs, name, tasks, "test_accuracy"))] for name, _, _ in _modes(runs, "test_accuracy")]
    if rows:
        print("on the test files:")
        lib.table(["mode", *tasks, "mean"], rows)


def _markdown_table(lines):
    return "".join("| " + " | ".join(line) + " |\n" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def markdown(runs, tasks):
    """README's two tables. Accuracy: means over parties and seeds, the lowest and the highest of them, and the
    means of single seeds from lowest to highest; and what a run cost."""
    accuracy, costs = [["mode", *tasks, "mean (of a seed)", "seeds"]], [["mode", *COSTS]]
    for name, mode, mine in _modes(runs):
        seeds = sorted({r["seed"] for r in mine})
        by_seed = [mean_over([r for r in mine if r["seed"] == seed], name, tasks) for seed in seeds]
        whole = [value for value in by_seed if value is not None]
        spread = f" ({min(whole):.1f}-{max(whole):.1f})" if len(whole) > 1 else ""
        accuracy.append([mode.description, *(_accuracies(mine, task) for task in tasks),
                         _point(mean_over(runs, name, tasks), 2) + spread, str(len(seeds))])
        costs.append([mode.description, *_costs(mine, tasks)])
    tfidf = [seven_runs.TFIDF[task] for task in tasks]
    accuracy.append(["tf-idf with logistic regression, all rows", *map(_point, tfidf),
                     _point(statistics.mean(tfidf), 2), "-"])
    return _markdown_table(accuracy) + "\n" + _markdown_table(costs)
