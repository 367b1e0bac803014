"""A session's answers from its raw files, on sessions whose energies can be worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_session import made_manifest, made_marks, made_stream

from director.answers.results import write_results
from director.answers.summary import EnergyFigure, PhaseGroup, Summary
from director.session.files import SessionError
from director.session.manifest import PhaseSource, StreamFile
from drivers.contract import Accuracy, Channel, Scope, Status

S = 1_000_000_000
ORIGIN = 1000 * S
MARKS = [PhaseSource(kind="marks", file="marks")]


def at(seconds: float) -> int:
    return ORIGIN + round(seconds * S)


def power(device: str = "meter", scope: Scope = "wall", *, model: str = "", fraction: float | None = None) -> Channel:
    """A meter that gives, each second, the mean of the second before."""
    return Channel(
        name=f"made/{device}/power",
        device=device,
        quantity="power",
        unit="W",
        kind="gauge",
        scope=scope,
        model=model,
        update_period_s=1.0,
        window_s=1.0,
        stamped=True,
        accuracy=None if fraction is None else Accuracy(reading_fraction=fraction),
    )


def energy(device: str = "gpu0", scope: Scope = "gpu") -> Channel:
    """A counter of millijoules."""
    return Channel(
        name=f"made/{device}/energy",
        device=device,
        quantity="energy",
        unit="J",
        kind="counter",
        scope=scope,
        scale=1e-3,
        update_period_s=0.001,
        accuracy=Accuracy(reading_fraction=0.01),
    )


def each_second(session: Path, channels: list[Channel], *values: object, statuses: object = None) -> StreamFile:
    """A stream of one reading a second: value i stands for the second that begins at i."""
    columns = [np.asarray(v, dtype=float if c.kind == "gauge" else np.int64) for c, v in zip(channels, values)]  # noqa: B905
    t_ns = ORIGIN + (np.arange(len(columns[0])) + 1) * S
    status = None if statuses is None else [np.asarray(s, dtype=np.uint8) for s in statuses]  # type: ignore[attr-defined]
    return made_stream(session, channels, t_ns, columns, rate_hz=1.0, statuses=status)


def group(summary: Summary, name: str) -> PhaseGroup:
    return next(p for p in summary.phases if p.name == name)


def total(summary: Summary, name: str = "command") -> EnergyFigure:
    figure = group(summary, name).total
    assert figure is not None
    return figure


def joules(summary: Summary, name: str = "command") -> float:
    value = total(summary, name).joules
    assert value is not None
    return value


def test_energies_of_phases_and_of_their_names(tmp_path: Path) -> None:
    watts = [100.0] * 10 + [200.0] * 10 + [300.0] * 10 + [100.0] * 10
    file = each_second(tmp_path, [power()], watts)
    made_marks(
        tmp_path,
        [
            ("run", at(5), at(35)),
            ("epoch", at(10), at(20), {"samples": 50}),
            ("epoch", at(20), at(30), {"samples": 70}),
        ],
    )
    made_manifest(tmp_path, [file], (at(0), at(40)), phase_sources=MARKS)
    summary = write_results(tmp_path)
    assert joules(summary) == pytest.approx(7000.0)  # 10·(100 + 200 + 300 + 100)
    assert joules(summary, "run") == pytest.approx(500 + 2000 + 3000 + 500)
    assert joules(summary, "epoch") == pytest.approx(5000.0)
    epoch = group(summary, "epoch")
    assert (epoch.count, epoch.lane_count, epoch.duration_s, epoch.first_begin_s) == (2, 2, 20.0, 10.0)
    assert (epoch.work, epoch.flagged) == ({"samples": 120.0}, 0)
    assert total(summary, "epoch").method == "integrated"
    table = pq.read_table(tmp_path / "energies.parquet").to_pylist()
    assert [row["joules"] for row in table] == pytest.approx([7000.0, 6000.0, 2000.0, 3000.0])
    assert [row["phase"] for row in table] == [0, 1, 2, 3]
    assert [p.name for p in summary.phases] == ["command", "run", "epoch"]


def test_phases_of_ranks_that_overlap_count_once(tmp_path: Path) -> None:
    file = each_second(tmp_path, [power()], [100.0] * 10 + [200.0] * 10 + [400.0] * 10 + [100.0] * 10)
    made_marks(tmp_path, [("epoch", at(10), at(20))], pid=1, rank=0)
    made_marks(tmp_path, [("epoch", at(12), at(25)), ("epoch", at(30), at(32))], pid=2, rank=1)
    made_manifest(tmp_path, [file], (at(0), at(40)), phase_sources=MARKS)
    summary = write_results(tmp_path)
    epoch = group(summary, "epoch")
    assert joules(summary, "epoch") == pytest.approx(2000 + 5 * 400 + 200)  # 10 … 25 s and 30 … 32 s
    assert (epoch.count, epoch.lane_count, epoch.duration_s) == (3, 2, 17.0)
    rows = pq.read_table(tmp_path / "energies.parquet").to_pylist()
    assert len(rows) == 4, "the union is in no table of phases"
    assert sum(row["joules"] for row in rows[1:]) > joules(summary, "epoch")


def test_the_total_is_over_the_outermost_devices(tmp_path: Path) -> None:
    channels = [power(), power("gpu0", "gpu"), power("gpu1", "gpu")]
    file = each_second(tmp_path, channels, [500.0] * 20, [200.0] * 20, [100.0] * 20)
    made_manifest(tmp_path, [file], (at(2), at(12)))
    summary = write_results(tmp_path)
    assert joules(summary) == pytest.approx(5000.0)
    (rest,) = group(summary, "command").not_explained
    assert rest.joules == pytest.approx(2000.0)
    assert {f.name: f.joules for f in group(summary, "command").components} == {
        "node0/meter": pytest.approx(5000.0),
        "node0/gpu0": pytest.approx(2000.0),
        "node0/gpu1": pytest.approx(1000.0),
    }
    assert "all that the plug feeds" in summary.scope_of_total


@pytest.mark.parametrize(("models", "expanded"), [(("a", "a"), 300.0), (("a", "b"), math.hypot(200.0, 100.0))])
def test_devices_of_one_model_err_together(tmp_path: Path, models: tuple[str, str], expanded: float) -> None:
    # 10 % of 2000 J and of 1000 J as the limits of rectangles: u = limit/√3, U = 2u
    channels = [power(f"gpu{i}", "gpu", model=model, fraction=0.1) for i, model in enumerate(models)]
    file = each_second(tmp_path, channels, [200.0] * 20, [100.0] * 20)
    made_manifest(tmp_path, [file], (at(2), at(12)))
    figure = total(write_results(tmp_path))
    assert figure.joules == pytest.approx(3000.0)
    assert figure.expanded_joules == pytest.approx(2 * expanded / math.sqrt(3))


def test_energy_above_the_idle_baseline(tmp_path: Path) -> None:
    file = each_second(tmp_path, [power()], [100.0] * 10 + [300.0] * 40 + [100.0] * 10)
    made_manifest(tmp_path, [file], (at(10), at(50)), idle_ns=[(at(0), at(10)), (at(50), at(60))])
    summary = write_results(tmp_path)
    assert summary.idle_watts == {"node0/meter": pytest.approx(100.0)}
    assert total(summary).above_idle_joules == pytest.approx(40 * (300 - 100))


def test_a_short_burst_on_an_idle_machine_is_exact_when_padded(tmp_path: Path) -> None:
    # 450 W from 20.37 s for 2.3 s, 100 W else, seen by a 1 Hz meter that averages over the whole second
    watts = np.full(60, 100.0)
    begin, end = 20.37, 22.67
    for second in range(60):
        watts[second] += 350.0 * max(0.0, min(end, second + 1) - max(begin, second))
    file = each_second(tmp_path, [power()], watts)
    made_marks(tmp_path, [("burst", at(begin), at(end))])
    idle = [(at(1), at(10)), (at(40), at(50))]
    made_manifest(tmp_path, [file], (at(10), at(40)), idle_ns=idle, phase_sources=MARKS)
    summary = write_results(tmp_path)
    figure = group(summary, "burst").components[0]
    assert figure.method == "padded"
    assert figure.joules == pytest.approx(450 * 2.3, rel=1e-9)
    (other,) = figure.alternatives
    assert other.method == "integrated" and other.joules is not None and other.expanded_joules is not None
    # the overlap rule loses ΔP·f·(1 − f) at each edge: f = 0.37 and 0.67
    assert other.joules == pytest.approx(450 * 2.3 - 350 * (0.37 * 0.63 + 0.67 * 0.33), rel=1e-9)
    assert abs(other.joules - 450 * 2.3) < other.expanded_joules


def counted(session: Path, gauge_watts: float, fraction: float | None = 0.01) -> Summary:
    """20 s of 250 W by a counter, and of `gauge_watts` by a gauge of the same device."""
    channels = [power("gpu0", "gpu", fraction=fraction), energy()]
    file = each_second(session, channels, [gauge_watts] * 30, 250_000 * (np.arange(30) + 1))
    made_manifest(session, [file], (at(2), at(22)))
    return write_results(session)


def test_a_counter_is_believed_and_the_gauge_shown_beside_it(tmp_path: Path) -> None:
    (figure,) = group(counted(tmp_path, 252.0), "command").components
    assert (figure.method, figure.channels) == ("counter", ["made/gpu0/energy"])
    assert figure.joules == pytest.approx(5000.0)
    (other,) = figure.alternatives
    assert (other.method, other.joules) == ("integrated", pytest.approx(5040.0))
    assert other.difference == pytest.approx(0.008) and other.not_used_because == ""


def test_a_device_whose_accuracy_nobody_states_does_not_win_by_that(tmp_path: Path) -> None:
    (figure,) = group(counted(tmp_path, 252.0, fraction=None), "command").components
    assert figure.method == "counter" and figure.accuracy_known


def test_a_counter_that_differs_by_more_than_a_twentieth_is_not_believed(tmp_path: Path) -> None:
    summary = counted(tmp_path, 270.0)
    (figure,) = group(summary, "command").components
    assert (figure.method, figure.joules) == ("integrated", pytest.approx(5400.0))
    (other,) = figure.alternatives
    assert other.method == "counter" and "-7.4%" in other.not_used_because
    assert any("integrated power is used instead" in warning for warning in summary.warnings)


@pytest.mark.parametrize(("missing", "coverage"), [(8, 0.8), (24, 0.4)])
def test_what_was_not_measured_is_told_and_never_zero(tmp_path: Path, missing: int, coverage: float) -> None:
    statuses = np.full(60, Status.NEW)
    statuses[20 : 20 + missing] = Status.MISSING
    file = each_second(tmp_path, [power()], [100.0] * 60, statuses=[statuses])
    made_manifest(tmp_path, [file], (at(10), at(50)))
    summary = write_results(tmp_path)
    figure = total(summary)
    assert figure.coverage == pytest.approx(coverage)
    assert figure.missing == missing
    if coverage < 0.5:
        assert figure.joules is None and figure.mean_watts is None and summary.metrics == []
        assert any("no energy for phase command: only 40%" in warning for warning in summary.warnings)
    else:
        assert figure.joules == pytest.approx(4000.0)
        assert any("80.0% of phase command was measured" in warning for warning in summary.warnings)


def test_steps_inside_a_gap_do_not_cost_the_others_their_energy(tmp_path: Path) -> None:
    # 40 steps of a second at 100 … 300 W; in the gap of 8 s, six see no measured time at all
    watts = np.linspace(100.0, 300.0, 60)
    statuses = np.full(60, Status.NEW)
    statuses[20:28] = Status.MISSING
    file = each_second(tmp_path, [power()], watts, statuses=[statuses])
    made_marks(tmp_path, [("step", at(10 + i), at(11 + i) - 1000) for i in range(40)])
    made_manifest(tmp_path, [file], (at(10), at(50)), phase_sources=MARKS)
    summary = write_results(tmp_path)
    steps = total(summary, "step")
    assert steps.coverage == pytest.approx(0.8, abs=1e-3)
    assert steps.joules is not None and steps.expanded_joules is not None
    assert abs(steps.joules - watts[10:50].sum()) < steps.expanded_joules
    rows = pq.read_table(tmp_path / "energies.parquet").to_pylist()
    assert sum(row["joules"] is None for row in rows) == 8


def test_phases_shorter_than_the_readings_are_told_of(tmp_path: Path) -> None:
    file = each_second(tmp_path, [power()], [100.0] * 20)
    made_marks(tmp_path, [("step", at(5 + i / 10), at(5.1 + i / 10)) for i in range(100)])
    made_manifest(tmp_path, [file], (at(0), at(20)), phase_sources=MARKS)
    summary = write_results(tmp_path)
    assert joules(summary, "step") == pytest.approx(1000.0)
    assert any("step: 100 phases, but only 10 readings of node0/meter" in warning for warning in summary.warnings)


def test_a_phase_that_never_ended_is_flagged(tmp_path: Path) -> None:
    file = each_second(tmp_path, [power()], [100.0] * 20)
    made_marks(tmp_path, [("run", at(2), at(12)), ("epoch", at(5), at(30))])
    made_manifest(tmp_path, [file], (at(0), at(20)), phase_sources=MARKS)
    summary = write_results(tmp_path)
    assert group(summary, "run").flagged == 1, "it crosses the epoch"
    assert group(summary, "epoch").flagged == 1 and group(summary, "epoch").duration_s == 15.0
    assert any("lay outside the measured time" in warning for warning in summary.warnings)


@pytest.mark.parametrize(
    ("span", "begin_s", "end_s"),
    [(None, 1.0, 20.0), ((None, None), 1.0, 20.0), ((5.0, None), 5.0, 20.0), ((None, 9.0), 1.0, 9.0)],
)
def test_without_the_commands_edges_the_traces_give_them(
    tmp_path: Path, span: tuple[float | None, float | None] | None, begin_s: float, end_s: float
) -> None:
    # a replay runs no command; of one that was killed with all that watched it, the end is not known
    file = each_second(tmp_path, [power()], [100.0] * 20)
    edges = None if span is None else tuple(None if s is None else at(s) for s in span)
    made_manifest(tmp_path, [file], edges, state="recovered")  # type: ignore[arg-type]
    summary = write_results(tmp_path)
    assert group(summary, "command").duration_s == pytest.approx(end_s - begin_s)
    assert joules(summary) == pytest.approx(100 * (end_s - begin_s))


def test_a_session_without_any_reading_has_answers(tmp_path: Path) -> None:
    file = made_stream(tmp_path, [power()], np.empty(0, np.int64), [np.empty(0)], rate_hz=1.0)
    made_manifest(tmp_path, [file], None)
    summary = write_results(tmp_path)
    assert total(summary).joules is None and group(summary, "command").duration_s == 0.0
    made_manifest(tmp_path, [], (at(0), at(5)))
    bare = write_results(tmp_path)
    assert group(bare, "command").total is None and any("no power" in warning for warning in bare.warnings)
    made_manifest(tmp_path, [], (at(0), at(5)), state="measuring")
    with pytest.raises(SessionError, match="recover"):
        write_results(tmp_path)


def test_a_second_time_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    channels = [power("gpu0", "gpu", fraction=0.05), energy(), power("gpu1", "gpu"), power()]
    watts = rng.uniform(50, 500, (4, 60))
    counter = np.cumsum(watts[0] * 1000).astype(np.int64)
    file = each_second(tmp_path, channels, watts[0], counter, watts[2], watts[3] + 1000)
    made_marks(tmp_path, [(f"part{i % 7}", at(3 + i), at(4.5 + i), {"samples": i}) for i in range(40)])
    made_manifest(tmp_path, [file], (at(2), at(50)), idle_ns=[(at(0), at(2))], phase_sources=MARKS)
    names = ("summary.json", "phases.parquet", "energies.parquet")
    write_results(tmp_path)
    first = [(tmp_path / name).read_bytes() for name in names]
    write_results(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in names] == first


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_phases_that_tile_the_command_sum_to_it(data: st.DataObject) -> None:
    seconds = data.draw(st.integers(5, 30))
    watts = data.draw(st.lists(st.floats(0, 1e4), min_size=seconds, max_size=seconds))
    codes = data.draw(st.lists(st.sampled_from([0, 0, 0, 0, 1, 2, 3]), min_size=seconds, max_size=seconds))
    inner = data.draw(st.sets(st.integers(2001, seconds * 1000 - 2001), max_size=12))
    edges = [2000, *sorted(inner), seconds * 1000 - 2000]
    edges = edges if edges[0] < edges[-1] else [2000, 2500]
    codes = [0, 0, *codes[2:-2], 0, 0]
    with TemporaryDirectory() as name:
        session = Path(name)
        file = each_second(session, [power(fraction=0.01)], watts, statuses=[codes])
        tiles = [("tile", at(a / 1000), at(b / 1000)) for a, b in zip(edges, edges[1:])]  # noqa: B905, RUF007
        made_marks(session, tiles)
        span = (at(edges[0] / 1000), at(edges[-1] / 1000))
        made_manifest(session, [file], span, phase_sources=MARKS)
        summary = write_results(session)
        text = (session / "summary.json").read_bytes()
        rows = pq.read_table(session / "energies.parquet").to_pylist()
    whole, parts = rows[0], rows[1:]
    if whole["joules"] is not None and all(part["joules"] is not None for part in parts):
        assert math.fsum(part["joules"] for part in parts) == pytest.approx(whole["joules"], rel=1e-9, abs=1e-6)
    assert (total(summary, "tile").joules is None) == (whole["joules"] is None)
    if whole["joules"] is not None:
        assert joules(summary, "tile") == pytest.approx(joules(summary), rel=1e-9, abs=1e-6)
    for row in rows:
        assert (row["joules"] is None) == (row["expanded_joules"] is None)
        assert row["joules"] is None or row["expanded_joules"] >= 0
        assert 0 <= row["coverage"] <= 1
    json.loads(text, parse_constant=pytest.fail)  # neither NaN nor Infinity


def test_of_many_names_those_that_last_longest_are_listed(tmp_path: Path) -> None:
    file = each_second(tmp_path, [power()], [100.0] * 400)
    phases = [(f"s{i}", at(10 + i), at(10 + i + 0.002 * (i + 1))) for i in range(300)]
    made_marks(tmp_path, [("run", at(9), at(9.001)), *phases])
    made_manifest(tmp_path, [file], (at(0), at(400)), phase_sources=MARKS)
    summary = write_results(tmp_path)
    assert [p.name for p in summary.phases] == ["command", "run", *(f"s{i}" for i in range(299, 201, -1))]
    assert summary.phases_left_out == 202
    assert len(pq.read_table(tmp_path / "energies.parquet")) == 302
