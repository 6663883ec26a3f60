"""Which settings a sweep tries next, and which trials it stops early.

The Bayes search of the stand-in draws near the best trial so far; W&B fits a Gaussian process. Tests of a client depend
on the order of requests, not on how well the settings are chosen.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

from helpers.wandb_server.state import ServerRun, ServerSweep, State


def next_settings(state: State, sweep: ServerSweep) -> dict[str, Any] | None:
    """Return the settings of the next trial; None if the sweep is over."""
    parameters, count = sweep.config["parameters"], len(sweep.trials)
    if sweep.config["method"] == "grid":
        grid = itertools.product(*(_values(parameter) for parameter in parameters.values()))
        values = next(itertools.islice(grid, count, None), None)
        return None if values is None else dict(zip(parameters, values, strict=True))
    if count >= sweep.config.get("run_cap", math.inf):
        return None
    rng = random.Random(count)
    drawn = {name: _draw(parameter, rng) for name, parameter in parameters.items()}
    if sweep.config["method"] == "bayes" and (best := _best(state, sweep)):
        # one setting moves, the others stay
        moved = rng.choice(list(parameters))
        drawn = {**best, moved: drawn[moved]}
    return drawn


def _values(parameter: dict[str, Any]) -> list[Any]:
    return parameter["values"] if "values" in parameter else [parameter["value"]]


def _draw(parameter: dict[str, Any], rng: random.Random) -> Any:
    if "min" not in parameter:
        return rng.choice(_values(parameter))
    low, high = parameter["min"], parameter["max"]
    if parameter.get("distribution") == "log_uniform_values":
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    return rng.randint(low, high) if isinstance(low, int) else rng.uniform(low, high)


def _best(state: State, sweep: ServerSweep) -> dict[str, Any] | None:
    runs = [state.run(sweep.entity, sweep.project, name) for name in sweep.trials]
    scored = [(_scores(sweep, run)[-1], run.name) for run in runs if _scores(sweep, run)]
    return sweep.trials[max(scored)[1]] if scored else None


def _scores(sweep: ServerSweep, run: ServerRun) -> list[float]:
    """Return the values of the sweep's metric in the run's history, greater is better."""
    sign = -1 if sweep.config["metric"]["goal"] == "minimize" else 1
    return [sign * value for value in run.column(sweep.config["metric"]["name"])]


def stop_early(state: State, run: ServerRun) -> None:
    """Mark a trial to be stopped if hyperband says so: at each band only the best 1/eta of the trials go on.

    The bands are ``min_iter * eta ** k`` rows of the metric.

    Source: https://jmlr.org/papers/v18/16-558.html
    """
    sweep = state.sweeps.get(run.sweep)
    rule = sweep.config.get("early_terminate") if sweep else None
    if sweep is None or rule is None or run.state != "running":
        return
    eta, bands = rule.get("eta", 3), [rule["min_iter"] * rule.get("eta", 3) ** k for k in range(10)]
    scores = _scores(sweep, run)
    for band in (band for band in bands if band <= len(scores)):
        reached = [_scores(sweep, state.run(run.entity, run.project, name)) for name in sweep.trials]
        values = sorted((values[band - 1] for values in reached if len(values) >= band), reverse=True)
        if len(values) > 1 and scores[band - 1] < values[max(0, math.ceil(len(values) / eta) - 1)]:
            run.should_stop = True
