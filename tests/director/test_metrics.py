"""Metrics against figures worked out by hand."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.answers.metrics import olympic, session_metrics
from director.answers.number_text import duration_text, figure_text
from director.answers.summary import EnergyFigure, Metric, PhaseGroup
from director.session.manifest import Factors


def figure(joules: float | None, expanded: float | None = None, *, estimate: bool = False) -> EnergyFigure:
    return EnergyFigure(
        name="total",
        scope="total",
        method="sum",
        joules=joules,
        expanded_joules=expanded,
        mean_watts=None,
        peak_watts=None,
        coverage=1.0,
        estimate=estimate,
        accuracy_known=True,
    )


def group(name: str, total: EnergyFigure, seconds: float = 10.0, count: int = 1, **work: float) -> PhaseGroup:
    return PhaseGroup(
        name=name,
        count=count,
        lane_count=count,
        duration_s=seconds,
        first_begin_s=0.0,
        work=work,
        flagged=0,
        total=total,
        components=[],
        not_explained=[],
    )


def values(phases: list[PhaseGroup], factors: Factors = Factors()) -> dict[str, float]:  # noqa: B008
    return {m.name: m.value for m in session_metrics(phases, factors)}


def test_joules_to_train_is_of_the_run_phase() -> None:
    phases = [group("command", figure(5000.0), 60.0), group("run", figure(3600.0, 36.0), 40.0, samples=7200.0)]
    metrics = {
        m.name: m for m in session_metrics(phases, Factors(cost_per_kwh=0.30, currency="EUR", carbon_g_per_kwh=400))
    }
    assert metrics["joules-to-train"].value == 3600.0
    assert metrics["joules-to-train"].expanded == 36.0
    assert metrics["time-to-train"].value == 40.0
    assert metrics["energy-delay product"].value == 3600.0 * 40.0
    assert metrics["samples per joule"].value == 2.0
    assert metrics["samples per joule"].expanded == pytest.approx(0.02)
    assert metrics["cost"].value == pytest.approx(0.0003)  # 3600 J = 1 Wh
    assert metrics["carbon"].value == pytest.approx(0.4)


def test_no_run_phase_says_that_start_up_counts() -> None:
    (metric, _) = session_metrics([group("command", figure(100.0, 1.0))], Factors())
    assert metric.name == "energy" and "start-up" in metric.note


def test_nothing_measured_gives_no_metric_and_no_zero() -> None:
    assert session_metrics([group("command", figure(None))], Factors()) == []


def test_queries_and_streams() -> None:
    found = values([group("command", figure(50.0), queries=200.0)])
    assert found["queries per joule"] == 4.0
    assert found["energy per query"] == 0.25


def test_epoch_energy_is_the_mean() -> None:
    found = values([group("command", figure(100.0)), group("epoch", figure(90.0), count=3)])
    assert found["energy per epoch"] == 30.0


def test_an_estimate_stays_an_estimate() -> None:
    assert all(m.estimate for m in session_metrics([group("command", figure(10.0, 5.0, estimate=True))], Factors())[:1])


def test_olympic_drops_by_time_and_averages_the_same_runs() -> None:
    # the cheapest and the dearest run are kept: only time decides
    kept, seconds, joules = olympic([(10.0, 500.0), (9.0, 100.0), (12.0, 1.0), (11.0, 900.0), (10.5, 400.0)])
    assert kept == [0, 3, 4]
    assert (seconds, joules) == (10.5, 600.0)


def test_olympic_of_few_runs() -> None:
    assert olympic([(3.0, 9.0)]) == ([0], 3.0, 9.0)
    assert olympic([(3.0, 9.0), (5.0, 11.0)]) == ([0, 1], 4.0, 10.0)
    assert olympic([(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]) == ([1], 1.0, 2.0)
    with pytest.raises(ValueError, match="no run"):
        olympic([])


def test_figures_show_no_more_digits_than_they_have() -> None:
    assert figure_text(12345.6, 432.1, "J") == "12.35 ± 0.43 kJ"
    assert figure_text(0.0012345, None, "J") == "1.234 mJ"
    assert figure_text(0.002, 0.0001, "sample/J (= sample/s/W)") == "2.00 ± 0.10 msample/J (= msample/s/W)"
    assert figure_text(5.0, 0.0, "s") == "5.000 s"
    assert figure_text(0.0, 3.0, "J") == "0.0 ± 3.0 J"
    assert figure_text(1.0, 900.0, "J") == "1 ± 900 J"
    assert duration_text(0.05) == "50 ms"
    assert duration_text(3720) == "1 h 02 min"


def inference(scenario: str, total: EnergyFigure, seconds: float, work: dict[str, float], **logged: str) -> PhaseGroup:
    run = group("run", total, seconds, **work)
    return msgspec.structs.replace(run, attributes={"scenario": scenario, **logged})


def run_metrics(run: PhaseGroup) -> dict[str, Metric]:
    return {m.name: m for m in session_metrics([group("command", figure(9e9)), run], Factors())}


def test_offline_has_the_official_power_and_efficiency_beside_the_physical_one() -> None:
    # 600 s at 200 W; 1000 samples/s by LoadGen, which leaves out the time in which nothing was in flight
    work = {"queries": 1.0, "samples": 594_000.0}
    found = run_metrics(
        inference("Offline", figure(120_000.0, 1200.0), 600.0, work, result_samples_per_second="1000.0")
    )
    assert found["MLPerf average power"].value == pytest.approx(200.0)
    assert found["MLPerf average power"].expanded == pytest.approx(2.0)
    efficiency = found["MLPerf efficiency"]
    assert (efficiency.value, efficiency.unit) == (pytest.approx(5.0), "samples/s/W")
    assert efficiency.expanded == pytest.approx(0.05)  # the relative U of the energy
    assert found["samples per joule"].value == pytest.approx(4.95)
    assert "queries per joule" not in found, "offline, all samples are one query"


def test_tokens_come_before_samples_where_loadgen_gives_both() -> None:
    logged = {"result_completed_samples_per_sec": "3", "result_completed_tokens_per_second": "900"}
    found = run_metrics(inference("Server", figure(300.0), 10.0, {"queries": 30.0}, **logged))
    assert (found["MLPerf efficiency"].value, found["MLPerf efficiency"].unit) == (pytest.approx(30.0), "tokens/s/W")


def test_streams_are_told_in_millijoules() -> None:
    single = run_metrics(inference("SingleStream", figure(50.0, 1.0), 10.0, {"queries": 200.0, "samples": 200.0}))
    metric = single["MLPerf energy per stream"]
    assert (metric.value, metric.expanded, metric.unit) == (pytest.approx(250.0), pytest.approx(5.0), "mJ/stream")
    multi = run_metrics(inference("MultiStream", figure(50.0), 10.0, {"queries": 200.0, "samples": 1600.0}))
    assert multi["MLPerf energy per query"].value == pytest.approx(250.0)
    assert multi["samples per joule"].value == pytest.approx(32.0)
    assert "MLPerf efficiency" not in single and "MLPerf average power" not in multi


def test_a_count_that_was_worked_out_says_so() -> None:
    run = inference("SingleStream", figure(50.0), 10.0, {"queries": 200.0}, queries_from="rate × duration")
    found = run_metrics(run)
    assert all("rate × duration" in found[name].note for name in ("queries per joule", "MLPerf energy per stream"))


@given(
    scenario=st.sampled_from(["Offline", "Server", "Interactive", "SingleStream", "MultiStream", "", "None", "Other"]),
    joules=st.none() | st.just(0.0) | st.floats(1e-9, 1e12),
    seconds=st.just(0.0) | st.floats(1e-9, 1e6),
    amount=st.just(0.0) | st.floats(1e-3, 1e15),
    result=st.sampled_from(["", "0", "nan", "inf", "-1", "1e999", "12", "many"]),
    estimate=st.booleans(),
)
def test_no_metric_divides_by_nothing(
    scenario: str, joules: float | None, seconds: float, amount: float, result: str, estimate: bool
) -> None:
    total = figure(joules, None if joules is None else joules / 10, estimate=estimate)
    work = {"queries": amount, "samples": amount, "tokens": amount, "streams": amount}
    run = inference(scenario, total, seconds, work, result_samples_per_second=result)
    for metric in session_metrics([group("command", figure(None)), run], Factors(cost_per_kwh=1.0)):
        assert not math.isnan(metric.value)
        assert metric.estimate == estimate, "a figure of an estimate is an estimate"
        assert metric.expanded is None or metric.expanded >= 0


def test_ranks_that_mark_the_same_epochs_count_once() -> None:
    epochs = msgspec.structs.replace(group("epoch", figure(90.0), count=24), lane_count=3)
    assert values([group("command", figure(100.0)), epochs])["energy per epoch"] == 30.0
