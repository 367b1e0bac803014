"""Each worked figure of the documentation is what the program computes, and what its formula gives by hand.

A block ```toml worked names a check and holds what is given and what comes out. The check computes the result twice:
by the program's own functions, from readings or energies as they arise in a session, and by plain arithmetic.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Sequence
from math import ceil, exp, hypot, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from director.answers.host_results import _interconnect, imbalance
from director.answers.metrics import olympic, session_metrics
from director.answers.phase_intervals import join_hosts, phase_names
from director.answers.questions import Questions
from director.answers.scaling import energy_ratio, speed
from director.answers.straggling import joined_figures
from director.answers.summary import EnergyFigure, Metric, PhaseGroup
from director.characterize.load import Load
from director.energy.align import align
from director.energy.channel_timing import timing_of
from director.energy.component_energy import Intervals, Source, component_energy
from director.energy.components import build_tree
from director.energy.group_energy import not_explained, total_figure
from director.energy.interval_energy import TERMS, Energies, _edge, interval_energies
from director.phases.builder import build
from director.phases.join import waiting
from director.running.series import olympic_score
from director.session.manifest import Factors
from director.session.trace_store import Piece
from drivers.contract import Accuracy, Channel
from drivers.rapl.driver import counter_modulus
from power_agent.messages import MarkEvent

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parent.parent / "docs"
FORMULAS = DOCS / "formulas"
WORKED = re.compile(r"^```toml worked\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
OVERVIEWS = {"energy.md", "metrics.md", "uncertainty.md"}  # each of their formulas has a page of its own
SHOWN = 5e-4  # results are rounded to four digits or more
S = 1_000_000_000

Given = dict[str, Any]
Results = dict[str, float]


def gauge(given: Given) -> Channel:
    """A power channel whose readings carry the device's own instants, so that they describe the window before."""
    return Channel(
        name="sim/m/power",
        device="m",
        quantity="power",
        unit="W",
        kind="gauge",
        scope="wall",
        stamped=True,
        update_period_s=given["period_s"],
        window_s=given["window_s"],
        delay_s=given.get("delay_s", 0.0),
        delay_u_s=given.get("delay_u_s", 0.0),
        accuracy=Accuracy(reading_fraction=given.get("of_reading", 0.0), absolute=given.get("absolute_watts", 0.0)),
    )


def power_trace(given: Given) -> Piece:
    """One reading a period, the first at the end of the first period."""
    watts = np.repeat(np.array(given["watts"], dtype=float), given.get("times", [1] * len(given["watts"])))
    watts = np.tile(watts, given.get("repeats", 1))
    at = np.array(given["at_s"]) if "at_s" in given else (1 + np.arange(len(watts))) * given["period_s"]
    return trace(at, watts)


def trace(at_s: Any, values: Any) -> Piece:
    at = np.round(np.asarray(at_s) * S).astype(np.int64)
    value = np.asarray(values)
    return Piece(at, np.zeros(len(at), np.int64), [value], [np.zeros(len(at), np.uint8)])


def energies(channel: Channel, rate_hz: float, piece: Piece, given: Given) -> Energies:
    timing = timing_of(channel, rate_hz)
    edges = np.array([round(given["begin_s"] * S), round(given["end_s"] * S)], dtype=np.int64)
    bound = np.array([given.get("bound_s", 0.0) * S])
    return interval_energies(
        channel, timing, align(channel, timing, [piece], edges, 0), np.array([0]), np.array([1]), bound
    )


def of_power(given: Given) -> Energies:
    return energies(gauge(given), 1 / given["period_s"], power_trace(given), given)


def overlaps(given: Given, cells: Sequence[tuple[float, float, float]]) -> float:
    """Sum of power × the part of each cell (left, right, watts) that lies in the phase."""
    begin, end = given["begin_s"], given["end_s"]
    return sum(watts * max(0.0, min(right, end) - max(left, begin)) for left, right, watts in cells)


def counter_energy(given: Given) -> tuple[Results, Results]:
    largest, period = given["max_energy_range_uj"], given["update_s"]
    channel = Channel(
        name="rapl/package-0/energy",
        device="package-0",
        quantity="energy",
        unit="J",
        kind="counter",
        scale=1e-6,
        modulus=counter_modulus(largest),
        update_period_s=period,
    )
    at, raw = given["at_s"], given["readings_uj"]
    modulus = channel.modulus
    assert modulus is not None
    ours = energies(channel, 1.0, trace(at, np.array(raw, dtype=np.int64)), given)
    joules = [(b - a) % given["modulus_uj"] / 1e6 for a, b in itertools.pairwise(raw)]
    shifted = [t - period / 2 for t in at]
    cells = [(a, b, e / (b - a)) for a, b, e in zip(shifted[:-1], shifted[1:], joules, strict=True)]
    return (
        {"energy_joules": float(ours.joules[0]), "modulus_uj": modulus},
        {"energy_joules": overlaps(given, cells), "modulus_uj": given["modulus_uj"]},
    )


def gauge_lag(given: Given) -> tuple[Results, Results]:
    channel = gauge({**given, "period_s": given["update_s"]})
    lag = timing_of(Channel(**{f: getattr(channel, f) for f in channel.__struct_fields__ if f != "stamped"}), 10.0)
    return {"lag_s": lag.lag_ns * 1e-9}, {
        "lag_s": given.get("delay_s", 0.0) + (given["update_s"] + given["window_s"]) / 2
    }


def seen_load(given: Given) -> tuple[Results, Results]:
    """A value that was published at an instant, of a load that goes on and off."""
    load = Load(np.array([round(t * S) for t in given["edges_s"]]))
    end, width, shape = given["at_s"] - given["delay_s"], given["window_s"], given["shape"]
    if shape == "mean":
        on = load.seconds_on(np.array([end, end - width]), 0)
        ours = (on[0] - on[1]) / width
        pairs = zip(given["edges_s"][::2], given["edges_s"][1::2], strict=True)
        share = sum(max(0.0, min(b, end) - max(a, end - width)) for a, b in pairs) / width
    else:
        ours = load.filtered(np.array([end]), 0, width / 2)[0]
        steps = zip(given["edges_s"], itertools.cycle((1, -1)))
        share = sum(sign * (1 - exp(-(end - t) / (width / 2))) for t, sign in steps if t < end)
    off, on_watts = given["off_watts"], given["on_watts"]
    return {"watts": off + (on_watts - off) * float(ours)}, {"watts": off + (on_watts - off) * share}


def unit_cells(given: Given) -> list[tuple[float, float, float]]:
    """Readings one period apart, each for the period before it."""
    period = given["period_s"]
    return [(i * period, (i + 1) * period, watts) for i, watts in enumerate(given["watts"])]


def integrated_energy(given: Given) -> tuple[Results, Results]:
    return {"energy_joules": float(of_power(given).joules[0])}, {"energy_joules": overlaps(given, unit_cells(given))}


def mean_and_peak(given: Given) -> tuple[Results, Results]:
    ours = of_power(given)
    energy, seconds = overlaps(given, unit_cells(given)), given["end_s"] - given["begin_s"]
    touched = [w for left, right, w in unit_cells(given) if right > given["begin_s"] and left < given["end_s"]]
    mean = float(ours.joules[0] / (ours.duration_ns[0] * 1e-9))
    return (
        {"mean_watts": mean, "peak_watts": float(ours.peak_watts[0]), "least_watts": float(ours.least_watts[0])},
        {"mean_watts": energy / seconds, "peak_watts": max(touched), "least_watts": min(touched)},
    )


def coverage(given: Given) -> tuple[Results, Results]:
    ours = of_power(given)
    half, seconds = given["period_s"] / 2, given["end_s"] - given["begin_s"]
    middle = [t - half for t in given["at_s"]]
    cells = [(m - half, m + half, w) for m, w in zip(middle, given["watts"], strict=True)]
    holes = [
        (a[1], b[0], (a[2] + b[2]) / 2) for a, b in itertools.pairwise(cells) if b[0] - a[1] > 1.5 * given["period_s"]
    ]
    missing = sum(right - left for left, right, _ in holes)
    spread = max(given["watts"]) - min(given["watts"])
    return (
        {
            "coverage": float(ours.coverage[0]),
            "energy_joules": float(ours.joules[0]),
            "u_gap_joules": float(ours.terms["gap"][0]),
        },
        {
            "coverage": (seconds - missing) / seconds,
            "energy_joules": overlaps(given, cells) + overlaps(given, holes),
            "u_gap_joules": spread * missing / sqrt(12),
        },
    )


def padded_energy(given: Given) -> tuple[Results, Results]:
    channel = gauge(given)
    begin, end = round(given["begin_s"] * S), round(given["end_s"] * S)
    before, after = [round(t * S) for t in given["idle_before_s"]], [round(t * S) for t in given["idle_after_s"]]
    component = build_tree([("node0", channel)])[0]
    found = component_energy(
        component,
        [Source(channel, 1 / given["period_s"], lambda: [power_trace(given)])],
        Intervals(np.array([begin]), np.array([end]), np.zeros(1), [(before[0], before[1]), (after[0], after[1])]),
        0,
    )
    methods = {method.name: float(method.energies.joules[0]) for method in found.methods}
    pad = given["window_s"] + given["period_s"]
    watts = np.repeat(given["watts"], given["times"]).tolist()
    cells = unit_cells({**given, "watts": watts})
    wide = overlaps({"begin_s": given["begin_s"] - pad, "end_s": given["end_s"] + pad}, cells)
    by_hand = wide - given["idle_watts"] * 2 * pad
    return (
        {"padded_joules": methods["padded"], "integrated_joules": methods["integrated"]},
        {"padded_joules": by_hand, "integrated_joules": overlaps(given, cells)},
    )


def meter_term(given: Given) -> tuple[Results, Results]:
    ours = of_power(given)
    watts, seconds = given["watts"][0], given["end_s"] - given["begin_s"]
    limit = given["of_reading"] * watts * seconds + given["absolute_watts"] * seconds
    return (
        {"energy_joules": float(ours.joules[0]), "u_meter_joules": float(ours.terms["meter"][0])},
        {"energy_joules": watts * seconds, "u_meter_joules": limit / sqrt(3)},
    )


def edge_term(given: Given) -> tuple[Results, Results]:
    ours = float(of_power(given).terms["edge"][0])
    h, spread = given["period_s"], max(given["watts"]) - min(given["watts"])
    visible = 0.183 * spread * h
    hidden = 0.87 * h * sqrt(given["jumps_nearby"] * spread**2 / given["cells_nearby"] / 6)
    one = hypot(visible, hidden)
    result = {"visible_joules": visible, "hidden_joules": hidden}
    return {"u_edge_joules": ours, **result}, {"u_edge_joules": one * sqrt(2), **result}


def edge_kernel(given: Given) -> tuple[Results, Results]:
    channel = gauge({**given, "period_s": given["update_s"]})
    spread, hidden = np.array([given["spread_watts"]]), np.array([given["ripple_watts"] / sqrt(2)])
    h, w = given["update_s"], given["window_s"]
    gain = w / h if w > 1.5 * h else 0.0
    ours = float(_edge(timing_of(channel, 1 / h), channel, spread, np.array([h * S]), hidden * gain)[0])
    kernel = 0.204 * h - 0.021 * w if w < h else 0.183 * h + 0.09 * (w - h)
    inside = given["ripple_watts"] / sqrt(2) * gain * sqrt(h * w / 12)
    moved = given["spread_watts"] * given.get("delay_u_s", 0.0) / 2
    return {"u_one_edge_joules": ours}, {"u_one_edge_joules": hypot(given["spread_watts"] * kernel, inside, moved)}


def sync_term(given: Given) -> tuple[Results, Results]:
    ours = float(of_power(given).terms["sync"][0])
    by_hand = given["bound_s"] / sqrt(3) * hypot(given["begin_watts"], given["end_watts"])
    return {"u_sync_joules": ours}, {"u_sync_joules": by_hand}


def window_term(given: Given) -> tuple[Results, Results]:
    ours = of_power(given)
    h, w, seconds = given["period_s"], given["window_s"], given["end_s"] - given["begin_s"]
    watts = np.tile(given["watts"], given["repeats"]).tolist()
    wanted = [i for i in range(len(watts)) if given["begin_s"] <= (i + 0.5) * h < given["end_s"]]
    second = [watts[i - 1] - 2 * watts[i] + watts[i + 1] for i in wanted]
    integral = sum(x * x for x in second) / len(second) * seconds
    return (
        {"energy_joules": float(ours.joules[0]), "u_window_joules": float(ours.terms["window"][0])},
        {
            "energy_joules": sum(watts[i] for i in wanted) * h,
            "u_window_joules": sqrt(h * (1 - w / h) * integral / 6),
        },
    )


def step_term(given: Given) -> tuple[Results, Results]:
    channel = Channel(
        name="sim/g/energy",
        device="g",
        quantity="energy",
        unit="J",
        kind="counter",
        scale=1e-3,
        update_period_s=given["update_s"],
    )
    poll, watts = given["poll_s"], given["watts"]
    at = np.arange(200) * poll
    ours = energies(channel, 1 / poll, trace(at, np.round(at * watts * 1e3).astype(np.int64)), given)
    step = min(given["update_s"], poll)
    return {"u_step_joules": float(ours.terms["step"][0])}, {"u_step_joules": step / sqrt(12) * hypot(watts, watts)}


def figure(name: str, joules: float, u_joules: dict[str, float], above_idle: float | None = None) -> EnergyFigure:
    terms = {term: u_joules.get(term, 0.0) for term in TERMS}
    return EnergyFigure(
        name=name,
        scope="gpu",
        method="counter",
        joules=joules,
        expanded_joules=2 * sqrt(sum(u * u for u in terms.values())),
        mean_watts=None,
        peak_watts=None,
        coverage=1.0,
        estimate=False,
        accuracy_known=True,
        above_idle_joules=above_idle,
        terms=terms,
    )


def budget(given: Given) -> tuple[Results, Results]:
    terms = {term: np.array([given[term]]) for term in TERMS}
    none = np.zeros(1)
    ours = Energies(np.array([given["energy"]]), none, none, none, none, none, none, none, terms, none)  # type: ignore[arg-type]
    squares = sum(given[term] ** 2 for term in TERMS)
    return {"U_joules": float(ours.expanded_joules[0])}, {"U_joules": 2 * sqrt(squares)}


def totals(given: Given) -> tuple[Results, Results]:
    channels = [
        Channel(name=f"sim/{d}/power", device=d, quantity="power", unit="W", kind="gauge", scope=scope, model=model)  # type: ignore[arg-type]
        for d, scope, model in (
            ("wall", "wall", "meter"),
            ("gpu0", "gpu", "H100"),
            ("gpu1", "gpu", "H100"),
            ("package-0", "package", "Xeon"),
        )
    ]
    tree = build_tree([("n", channel) for channel in channels])
    parts = {c.name: figure(c.name, given[c.device], {"meter": given[f"u_{c.device}"]}) for c in tree}
    total = total_figure("total", [(c, parts[c.name], c.channels[0].model) for c in tree if c.device != "wall"])
    rest = not_explained(tree[0], parts, tree)
    assert total is not None and total.joules is not None and total.expanded_joules is not None
    assert rest is not None and rest.joules is not None and rest.expanded_joules is not None
    gpus, cpu = given["u_gpu0"] + given["u_gpu1"], given["u_package-0"]
    inside = given["gpu0"] + given["gpu1"] + given["package-0"]
    return (
        {
            "sum_joules": total.joules,
            "U_sum_joules": total.expanded_joules,
            "not_explained_joules": rest.joules,
            "U_not_explained_joules": rest.expanded_joules,
        },
        {
            "sum_joules": inside,
            "U_sum_joules": 2 * hypot(gpus, cpu),
            "not_explained_joules": given["wall"] - inside,
            "U_not_explained_joules": 2 * sqrt(given["u_wall"] ** 2 + gpus**2 + cpu**2),
        },
    )


def phase_group(name: str, given: Given, **more: Any) -> PhaseGroup:
    idle = given.get("idle_watts")
    above = given["energy_joules"] - idle * given["seconds"] if idle is not None else None
    total = figure("total", given["energy_joules"], {"meter": given["U_joules"] / 2}, above)
    more = {"work": {}, "count": 1, "lane_count": 1, **more}
    return PhaseGroup(
        name=name,
        duration_s=given["seconds"],
        first_begin_s=0.0,
        flagged=0,
        total=total,
        components=[],
        not_explained=[],
        **more,
    )


def metrics_of(given: Given, factors: Factors | None = None, **more: Any) -> dict[str, Metric]:
    command = phase_group("command", {"energy_joules": 1e9, "U_joules": 1.0, "seconds": 1e6})
    run = phase_group("run", given, **more)
    epochs = [phase_group("epoch", given, lane_count=given["epochs"])] if "epochs" in given else []
    return {metric.name: metric for metric in session_metrics([command, run, *epochs], factors or Factors())}


def pair(metric: Metric, name: str) -> Results:
    assert metric.expanded is not None
    return {name: metric.value, f"U_{name}": metric.expanded}


def joules_to_train(given: Given) -> tuple[Results, Results]:
    found = metrics_of(given)
    e, u = given["energy_joules"], given["U_joules"]
    return (
        {
            **pair(found["joules-to-train"], "joules_to_train"),
            **pair(found["energy per epoch"], "joules_per_epoch"),
            "time_to_train_s": found["time-to-train"].value,
        },
        {
            "joules_to_train": e,
            "U_joules_to_train": u,
            "joules_per_epoch": e / given["epochs"],
            "U_joules_per_epoch": u / given["epochs"],
            "time_to_train_s": given["seconds"],
        },
    )


def above_idle(given: Given) -> tuple[Results, Results]:
    found = metrics_of(given)["energy above idle"]
    return (
        pair(found, "above_idle_joules"),
        {
            "above_idle_joules": given["energy_joules"] - given["idle_watts"] * given["seconds"],
            "U_above_idle_joules": given["U_joules"],
        },
    )


def work_per_joule(given: Given) -> tuple[Results, Results]:
    found = metrics_of(given, work={"samples": given["samples"], "queries": given["queries"]})
    e, relative = given["energy_joules"], given["U_joules"] / given["energy_joules"]
    rate, watts = given["samples"] / given["seconds"], e / given["seconds"]
    return (
        {
            **pair(found["samples per joule"], "samples_per_joule"),
            "samples_per_s_per_watt": found["samples per joule"].value,
            **pair(found["energy per query"], "joules_per_query"),
        },
        {
            "samples_per_joule": given["samples"] / e,
            "U_samples_per_joule": given["samples"] / e * relative,
            "samples_per_s_per_watt": rate / watts,
            "joules_per_query": e / given["queries"],
            "U_joules_per_query": e / given["queries"] * relative,
        },
    )


def mlperf_offline(given: Given) -> tuple[Results, Results]:
    attributes = {"scenario": "Offline", "result_samples_per_second": str(given["result_samples_per_second"])}
    found = metrics_of(given, attributes=attributes)
    watts = given["energy_joules"] / given["seconds"]
    return (
        {
            "average_watts": found["MLPerf average power"].value,
            "samples_per_s_per_watt": found["MLPerf efficiency"].value,
        },
        {"average_watts": watts, "samples_per_s_per_watt": given["result_samples_per_second"] / watts},
    )


def mlperf_stream(given: Given) -> tuple[Results, Results]:
    found = metrics_of(given, attributes={"scenario": "SingleStream"}, work={"queries": given["queries"]})
    return (
        {"millijoules_per_stream": found["MLPerf energy per stream"].value},
        {"millijoules_per_stream": given["energy_joules"] * 1000 / given["queries"]},
    )


def energy_delay(given: Given) -> tuple[Results, Results]:
    e, u, seconds = given["energy_joules"], given["U_joules"], given["seconds"]
    ours = pair(metrics_of(given)["energy-delay product"], "joule_seconds")
    return ours, {"joule_seconds": e * seconds, "U_joule_seconds": u * seconds}


def cost_and_carbon(given: Given) -> tuple[Results, Results]:
    factors = Factors(cost_per_kwh=given["cost_per_kwh"], currency="EUR", carbon_g_per_kwh=given["carbon_g_per_kwh"])
    found = metrics_of(given, factors)
    kwh, u = given["energy_joules"] / 3.6e6, given["U_joules"] / 3.6e6
    return (
        {**pair(found["cost"], "cost"), **pair(found["carbon"], "carbon_g")},
        {
            "cost": kwh * given["cost_per_kwh"],
            "U_cost": u * given["cost_per_kwh"],
            "carbon_g": kwh * given["carbon_g_per_kwh"],
            "U_carbon_g": u * given["carbon_g_per_kwh"],
        },
    )


def olympic_mean(given: Given) -> tuple[Results, Results]:
    kept, seconds, joules = olympic(list(zip(given["seconds"], given["joules"], strict=True)))
    by_time = sorted(range(len(given["seconds"])), key=lambda i: given["seconds"][i])[1:-1]
    assert sorted(kept) == sorted(by_time)
    n = len(by_time)
    return (
        {"mean_seconds": seconds, "mean_joules": joules},
        {
            "mean_seconds": sum(given["seconds"][i] for i in by_time) / n,
            "mean_joules": sum(given["joules"][i] for i in by_time) / n,
        },
    )


def repeats(given: Given) -> tuple[Results, Results]:
    from director.answers.summary import Summary

    def summary(seconds: float, joules: float, u: float) -> Summary:
        given = {"energy_joules": joules, "U_joules": u, "seconds": seconds}
        phases = [phase_group(name, given) for name in ("command", "run")]
        return Summary(
            session="s",
            label="",
            tool_version="0",
            command=[],
            exit_code=0,
            signal=None,
            estimate_only=False,
            scope_of_total="",
            metrics=session_metrics(phases, Factors()),
            phases=phases,
            phases_left_out=0,
            idle_watts={},
            sampling=[],
            points=[],
            warnings=[],
        )

    joules, expanded = given["joules"], given["U_joules"]
    # a fastest and a slowest run that the score drops
    series = [(1.0, 1.0, 1.0), *((10.0 + i, e, u) for i, (e, u) in enumerate(zip(joules, expanded, strict=True)))]
    series.append((99.0, 1e6, 1.0))
    score = olympic_score({f"run-{i}": summary(*run) for i, run in enumerate(series)})
    assert score is not None and score.expanded_joules is not None
    n, mean = len(joules), sum(joules) / len(joules)
    s = sqrt(sum((e - mean) ** 2 for e in joules) / (n - 1))
    return (
        {"mean_joules": score.mean_joules, "U_mean_joules": score.expanded_joules},
        {"mean_joules": mean, "U_mean_joules": hypot(sum(expanded) / n, 2 * s / sqrt(n))},
    )


def difference(given: Given) -> tuple[Results, Results]:
    from director.running.series import _expanded_of_mean

    def metrics(joules: list[float], u_share: float) -> list[Metric]:
        return [
            Metric(name="joules-to-train", value=e, expanded=u_share * e, unit="J", phase="run", estimate=False)
            for e in joules
        ]

    both = given["before_joules"], given["after_joules"]
    one_meter, two_meters = (
        [_expanded_of_mean(metrics(joules, share)) or 0.0 for joules in both] for share in (0.0, given["U_share"])
    )
    means = [sum(joules) / len(joules) for joules in both]
    of_means = [
        sum((e - mean) ** 2 for e in joules) / (len(joules) - 1) / len(joules)
        for joules, mean in zip(both, means, strict=True)
    ]
    shares = [hypot(given["U_share"] * mean, 2 * sqrt(u2)) for mean, u2 in zip(means, of_means, strict=True)]
    return (
        {
            "difference_joules": means[0] - means[1],
            "U_same_machine_joules": hypot(*one_meter),
            "U_two_machines_joules": hypot(*two_meters),
        },
        {
            "difference_joules": means[0] - means[1],
            "U_same_machine_joules": 2 * sqrt(sum(of_means)),
            "U_two_machines_joules": hypot(*shares),
        },
    )


def waiting_energy(given: Given) -> tuple[Results, Results]:
    ends, watts = given["end_s"], given["waiting_watts"]
    marks = [
        MarkEvent(
            t_ns=t * S, clock="monotonic", op=op, name="step", index=0, key=f"{i}", lane=f"{i}", host=f"h{i}", rank=i
        )  # type: ignore[arg-type]
        for i, end in enumerate(ends)
        for op, t in (("begin", 0), ("end", end))
    ]
    table, _, _ = build(
        marks, begin_ns=0, end_ns=(max(ends) + 1) * S, place=lambda _host, _clock, at: (at, np.zeros(len(at), np.int64))
    )
    together = join_hosts(table, phase_names(table)[0], [f"h{i}" for i in range(len(ends))])
    joins = together.of_name[1]
    seconds, joules = 0.0, 0.0
    for i, power in enumerate(watts):
        channel = gauge({"period_s": 1.0, "window_s": 1.0})
        piece = trace(1 + np.arange(max(ends) + 1), [200.0] * ends[i] + [float(power)] * (max(ends) + 1 - ends[i]))
        for begin, end in zip(
            *waiting(
                joins, np.flatnonzero(together.host[joins.rows] == i), np.zeros(1, np.int64), np.array([ends[i] * S])
            ),
            strict=True,
        ):
            seconds += (end - begin) / S
            joules += float(energies(channel, 1.0, piece, {"begin_s": begin / S, "end_s": end / S}).joules[0])
    told = joined_figures(table, together, 1, None)
    return (
        {"late_s": told.late_s, "waiting_s": seconds, "waiting_joules": joules},
        {
            "late_s": max(ends) - sorted(ends)[len(ends) // 2],
            "waiting_s": sum(max(ends) - end for end in ends),
            "waiting_joules": sum((max(ends) - end) * power for end, power in zip(ends, watts, strict=True)),
        },
    )


def host_imbalance(given: Given) -> tuple[Results, Results]:
    values = {f"h{i}": x for i, x in enumerate(given["joules"])}
    found = imbalance(values, {f"h{i}": u for i, u in enumerate(given["U_joules"])}, given["U_sum_joules"])
    assert found is not None and found.expanded is not None
    joules, largest = given["joules"], max(given["joules"])
    ratio = largest / (sum(joules) / len(joules))
    relative = given["U_joules"][joules.index(largest)] / largest, given["U_sum_joules"] / sum(joules)
    return (
        {"imbalance": found.ratio, "U_imbalance": found.expanded},
        {"imbalance": ratio, "U_imbalance": ratio * sqrt(relative[0] ** 2 + relative[1] ** 2)},
    )


def scaling_figures(given: Given) -> tuple[Results, Results]:
    (t1, t), (w1, w), (e1, e), (n1, n) = (given[key] for key in ("seconds", "work", "joules", "n"))
    (ut1, ut), (ue1, ue) = given["U_seconds"], given["U_joules"]
    speed_up, share = speed(t1, t, w1, w, ut1, ut)
    ratio, u_ratio = energy_ratio(e1, e, w1, w, ue1, ue)
    assert u_ratio is not None
    by_hand, of_energy = (t1 / w1) / (t / w), (e / w) / (e1 / w1)
    return (
        {
            "speed_up": speed_up,
            "U_speed_up": speed_up * share,
            "efficiency": speed_up * n1 / n,
            "energy_ratio": ratio,
            "U_energy_ratio": u_ratio,
        },
        {
            "speed_up": by_hand,
            "U_speed_up": by_hand * sqrt((ut1 / t1) ** 2 + (ut / t) ** 2),
            "efficiency": by_hand * n1 / n,
            "energy_ratio": of_energy,
            "U_energy_ratio": of_energy * sqrt((ue1 / e1) ** 2 + (ue / e) ** 2),
        },
    )


def interconnect_estimate(given: Given) -> tuple[Results, Results]:
    watts = given["interconnect_watts"]
    estimate, both = _interconnect([], {}, phase_group("run", given), Questions(interconnect_watts=watts))
    assert estimate is not None and estimate.joules is not None
    assert both is not None and both.joules is not None and both.expanded_joules is not None
    by_hand = watts * given["seconds"]
    return (
        {
            "interconnect_joules": estimate.joules,
            "with_interconnect_joules": both.joules,
            "U_with_interconnect_joules": both.expanded_joules,
        },
        {
            "interconnect_joules": by_hand,
            "with_interconnect_joules": given["energy_joules"] + by_hand,
            "U_with_interconnect_joules": given["U_joules"],
        },
    )


def clock_sync(given: Given) -> tuple[Results, Results]:
    from director.session.clock_model import SyncedClock
    from director.session.sync_file import Exchanges

    rows = np.array(given["exchanges_us"], np.int64) * 1000
    at = given["at_us"] * 1000
    model = SyncedClock(Exchanges(*rows.T))
    offset, bound = (int(found[0]) / 1000 for found in (model.offset(np.array([at])), model.bound(np.array([at]))))
    high, low = (
        [(t1, t2 - t1 + 1) for t1, t2, _, _ in rows.tolist()],
        [(t4, t3 - t4 - 1) for _, _, t3, t4 in rows.tolist()],
    )
    least = (low[-1][1] - high[0][1]) / (low[-1][0] - high[0][0])
    most = (high[-1][1] - low[0][1]) / (high[-1][0] - low[0][0])
    r, w = (least + most) / 2, (most - least) / 2 + 5e-6
    highest = min(limit + r * (at - t) + w * abs(at - t) for t, limit in high)
    lowest = max(limit + r * (at - t) - w * abs(at - t) for t, limit in low)
    return (
        {"rate_ppm": model.drift[0] * 1e6, "wander_ppm": model.drift[1] * 1e6, "offset_us": offset, "bound_us": bound},
        {
            "rate_ppm": r * 1e6,
            "wander_ppm": w * 1e6,
            "offset_us": round((highest + lowest) / 2) / 1000,
            "bound_us": (ceil((highest - lowest) / 2) + 1) / 1000,
        },
    )


CHECKS: dict[str, Callable[[Given], tuple[Results, Results]]] = {
    check.__name__: check
    for check in (
        counter_energy,
        gauge_lag,
        seen_load,
        integrated_energy,
        mean_and_peak,
        coverage,
        padded_energy,
        meter_term,
        edge_term,
        edge_kernel,
        sync_term,
        clock_sync,
        window_term,
        step_term,
        budget,
        totals,
        joules_to_train,
        above_idle,
        work_per_joule,
        mlperf_offline,
        mlperf_stream,
        energy_delay,
        cost_and_carbon,
        olympic_mean,
        repeats,
        difference,
        waiting_energy,
        host_imbalance,
        scaling_figures,
        interconnect_estimate,
    )
}
BLOCKS = [
    (page.name, tomllib.loads(block["text"]))
    for page in sorted(DOCS.rglob("*.md"))
    for block in WORKED.finditer(page.read_text())
]


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[f"{page}-{block['check']}" for page, block in BLOCKS])
def test_worked_figure(page: str, block: dict[str, Any]) -> None:
    program, by_hand = CHECKS[block["check"]](block["given"])
    for name, shown in block["result"].items():
        assert program[name] == pytest.approx(by_hand[name], rel=1e-9), f"{page}: the program and the formula differ"
        assert shown == pytest.approx(by_hand[name], rel=SHOWN), f"{page}: {name} is {by_hand[name]}"


def test_every_formula_has_a_worked_figure() -> None:
    assert {page for page, _ in BLOCKS} >= {page.name for page in FORMULAS.glob("*.md")} - OVERVIEWS
    assert {block["check"] for _, block in BLOCKS} == set(CHECKS)


def test_a_wrong_figure_is_found() -> None:
    page, block = next((page, block) for page, block in BLOCKS if block["check"] == "integrated_energy")
    wrong = {**block, "result": {"energy_joules": block["result"]["energy_joules"] * 1.001}}
    with pytest.raises(AssertionError):
        test_worked_figure(page, wrong)
