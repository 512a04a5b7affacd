"""What was found about more cores, and what follows from it, as tables and as a picture."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from bench.figures import Figure, Series, Table
from bench.scaling import model
from bench.scaling.model import Costs
from bench.scaling.trials import Case, Trial

CORES: Final = (1, 2, 4, 8, 16)
DRAWN_CORES: Final = (1, 2, 3, 4, 6, 8, 12, 16)
GRPC_CONNECTIONS: Final = 16
GRPC_STREAMS: Final = 16
"""256 calls at a time, as with 256 connections over HTTP/JSON."""
MODEL_CONNECTIONS: Final = 256
MODEL_WORKERS: Final = 2
FULL_UNDER_WAY: Final = 1024

NAMES: Final = {"put": "put", "get": "get", "serializable": "serializable get"}

Loaded: TypeAlias = defaultdict[Case, list[Trial]]
Fed: TypeAlias = defaultdict[tuple[str, int], list[Trial]]
"""By call and how many were under way."""


class Found:
    """All turns of all rounds."""

    def __init__(self) -> None:
        self.loaded: Loaded = defaultdict(list)
        self.pinned: Loaded = defaultdict(list)
        self.replicated: Loaded = defaultdict(list)
        self.fed: Fed = defaultdict(list)
        self.replicated_fed: Fed = defaultdict(list)
        self.memory: list[int] = []
        """Resident bytes of the node and of a worker, before any load."""


def title(case: Case) -> str:
    """A load, and who answered it."""
    name = NAMES[case.call]
    if case.streams:
        name = f"gRPC {name}, {case.connections} × {case.streams} streams"
    else:
        name += f", {case.connections} connection{'s' if case.connections > 1 else ''}"
    return f"{name}, {case.workers} worker{'' if case.workers == 1 else 's'}"


def middle(trials: Sequence[Trial], value: Callable[[Trial], float]) -> float:
    """The median over the rounds."""
    return statistics.median(value(trial) for trial in trials)


def all_tables(found: Found) -> list[Table]:
    """What was measured, then what was computed."""
    tables = [
        loads(found.loaded, "One node, all cores of this machine, the generator among them."),
        fed(found.fed, "The replica alone: batches from one process, no HTTP, no workers."),
    ]
    if found.pinned:
        caption = "Node and workers held to one core, the generator on the others."
        tables.append(loads(found.pinned, caption))
    if found.replicated:
        caption = "Three nodes on this machine: the leader is loaded, with and without a worker."
        tables.append(loads(found.replicated, caption))
        tables.append(fed(found.replicated_fed, "Three nodes: the leader alone, fed as above."))
    costs = all_costs(found)
    if costs:
        tables += [table_of_costs(costs), table_of_checks(found, costs), table_of_rates(costs)]
    if len(found.memory) == 2:
        rows = [
            [name, f"{size / 1e6:.0f}"]
            for name, size in zip(("node", "worker"), found.memory, strict=True)
        ]
        caption = "Resident memory with 10,000 keys, before any load."
        tables.append(Table(header=["process", "MB"], rows=rows, caption=caption))
    return tables


def loads(loaded: Loaded, caption: str) -> Table:
    """Rates and costs of each load, medians of the rounds."""
    header = [
        *("load", "answers/s", "spread", "p50 ms", "loop µs", "disk µs", "workers µs"),
        *("follower µs", "generator µs", "calls a batch", "server's cores", "strangers", "errors"),
    ]
    rows = []
    for case, trials in loaded.items():
        rates = [trial.rate for trial in trials]
        followers = middle(
            trials, lambda each: each.us(each.followers.main + each.followers.others) / 2
        )
        rows.append(
            [
                title(case),
                f"{statistics.median(rates):,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{middle(trials, lambda each: each.p50_us) / 1000:.2f}",
                f"{middle(trials, lambda each: each.us(each.node.main)):.1f}",
                f"{middle(trials, lambda each: each.us(each.node.others)):.1f}",
                f"{middle(trials, lambda each: each.us(each.workers)):.1f}",
                f"{followers:.1f}",
                f"{middle(trials, lambda each: each.us(each.generator)):.1f}",
                f"{middle(trials, lambda each: each.batch):.0f}",
                f"{middle(trials, lambda each: each.cores):.2f}",
                f"{middle(trials, lambda each: each.strangers):.2f}",
                str(sum(trial.failures for trial in trials)),
            ]
        )
    return Table(header=header, rows=rows, caption=caption)


def fed(turns: Fed, caption: str) -> Table:
    """What the replica did when it was asked in batches and had nothing else to do."""
    header = [
        *("call, under way", "answers/s", "loop µs", "disk µs", "calls a batch"),
        *("loop busy", "strangers", "errors"),
    ]
    rows = [
        [
            f"{NAMES[call]}, {under_way:,}",
            f"{middle(trials, lambda each: each.rate):,.0f}",
            f"{middle(trials, lambda each: each.us(each.node.main)):.1f}",
            f"{middle(trials, lambda each: each.us(each.node.others)):.1f}",
            f"{middle(trials, lambda each: each.batch):.0f}",
            f"{middle(trials, lambda each: each.node.main / each.seconds):.0%}",
            f"{middle(trials, lambda each: each.strangers):.2f}",
            str(sum(trial.failures for trial in trials)),
        ]
        for (call, under_way), trials in turns.items()
    ]
    return Table(header=header, rows=rows, caption=caption)


# --- what follows ---------------------------------------------------------------------------------


def all_costs(found: Found) -> dict[str, Costs]:
    """What each call costs whom, by its name; of those whose every part was measured."""
    costs: dict[str, Costs] = {}
    for call, name in NAMES.items():
        for prefix, connections, streams in (
            ("", MODEL_CONNECTIONS, 0),
            ("gRPC ", GRPC_CONNECTIONS, GRPC_STREAMS),
        ):
            one = found.loaded.get(Case(call, connections, 0, streams))
            many = found.loaded.get(Case(call, connections, MODEL_WORKERS, streams))
            full = found.fed.get((call, FULL_UNDER_WAY))
            if one and many and full:
                costs[prefix + name] = Costs(
                    alone=middle(one, lambda each: each.node_us),
                    behind=middle(many, lambda each: each.node_us),
                    worker=middle(many, lambda each: each.us(each.workers)),
                    full=middle(full, lambda each: each.node_us),
                )
    for call, name in NAMES.items():
        leader = found.replicated.get(Case(call, MODEL_CONNECTIONS, 0))
        full = found.replicated_fed.get((call, FULL_UNDER_WAY))
        if leader and full and name in costs:
            costs[f"{name}, leader of three"] = model.replicated(
                costs[name],
                alone=middle(leader, lambda each: each.node_us),
                full=middle(full, lambda each: each.node_us),
                follower=middle(
                    full, lambda each: each.us(each.followers.main + each.followers.others) / 2
                ),
            )
    return costs


def table_of_costs(costs: dict[str, Costs]) -> Table:
    """What the model is made of."""
    return Table(
        header=[
            *("call", "one process µs", "replica behind workers µs", "worker µs"),
            *("replica fed alone µs", "follower µs"),
        ],
        rows=[
            [
                name,
                *(f"{value:.1f}" for value in (each.alone, each.behind, each.worker, each.full)),
                f"{each.follower:.1f}",
            ]
            for name, each in costs.items()
        ],
        caption="What the model is made of: all measured, but for a leader behind workers.",
    )


def table_of_checks(found: Found, costs: dict[str, Costs]) -> Table:
    """The model held against this machine, with the generator on its cores."""
    cores = len(os.sched_getaffinity(0))
    rows = []
    for call, name in NAMES.items():
        if name not in costs:
            continue
        for workers in (0, MODEL_WORKERS):
            trials = found.loaded[Case(call, MODEL_CONNECTIONS, workers)]
            computed = model.beside_generator(
                costs[name],
                middle(trials, lambda each: each.us(each.generator)),
                cores,
                workers=workers > 0,
            )
            measured = middle(trials, lambda each: each.rate)
            rows.append(
                [title(Case(call, MODEL_CONNECTIONS, workers)), *_compared(computed, measured)]
            )
        fed_rate = middle(found.fed[call, FULL_UNDER_WAY], lambda each: each.rate)
        rows.append([f"{name}, fed alone", *_compared(model.ceiling(costs[name]), fed_rate)])
    return Table(
        header=["load", "computed/s", "measured/s", "measured of computed"],
        rows=rows,
        caption=f"The model held against this machine: {cores} cores, the generator on them.",
    )


def _compared(computed: float, measured: float) -> list[str]:
    return [f"{computed:,.0f}", f"{measured:,.0f}", f"{measured / computed:.0%}"]


def table_of_rates(costs: dict[str, Costs]) -> Table:
    """Calls a second against cores, computed."""
    rows = []
    for name, each in costs.items():
        single = model.alone(each)
        rows.append([f"{name}: one process", *(f"{single:,.0f}" for _ in CORES), "1"])
        rows.append(
            [
                f"{name}: front workers",
                *(f"{model.with_workers(each, cores):,.0f}" for cores in CORES),
                str(model.cores_until_ceiling(each)),
            ]
        )
    return Table(
        header=["call", *(f"{cores} core{'s' if cores > 1 else ''}" for cores in CORES), "full at"],
        rows=rows,
        caption="Computed: calls a second with the clients on other machines, an upper bound; and "
        "the number of cores from which more are of no use.",
    )


def figures(found: Found) -> list[Figure]:
    """Rate against cores, a picture a call: the model's line, and beside it what was measured."""
    costs = all_costs(found)
    drawn = []
    for call, name in NAMES.items():
        if name not in costs:
            continue
        points = sorted(measured_points(found, call))
        ceiling = middle(found.fed[call, FULL_UNDER_WAY], lambda each: each.rate)
        series = [
            Series(
                name=f"{name}, model",
                x=[float(cores) for cores in DRAWN_CORES],
                y=[model.best(costs[name], cores) for cores in DRAWN_CORES],
            ),
            Series(
                name=f"{name}, measured",
                x=[cores for cores, _ in points],
                y=[rate for _, rate in points],
            ),
            Series(
                name=f"{name}, the replica alone, measured",
                x=[float(DRAWN_CORES[0]), float(DRAWN_CORES[-1])],
                y=[ceiling, ceiling],
            ),
        ]
        drawn.append(
            Figure(
                name=f"scaling-{call}",
                title=f"{name[0].upper()}{name[1:]}: one node against its cores, clients elsewhere",
                x_label="cores that the node and its workers have",
                y_label=f"{name}s/s",
                series=series,
            )
        )
    return drawn


def measured_points(found: Found, call: str) -> list[tuple[float, float]]:
    """Cores and rate: held to one core, and with workers on what the generator left of all."""
    points = []
    held = [
        found.pinned[case]
        for case in found.pinned
        if case.call == call and case.connections == MODEL_CONNECTIONS
    ]
    if held:
        points.append((1.0, max(middle(trials, lambda each: each.rate) for trials in held)))
    shared = found.loaded.get(Case(call, MODEL_CONNECTIONS, MODEL_WORKERS))
    if shared:
        points.append(
            (middle(shared, lambda each: each.cores), middle(shared, lambda each: each.rate))
        )
    return points
