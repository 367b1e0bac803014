"""What a channel's response to a load tells of it, against simulated devices whose timing is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_session import made_manifest, made_marks, made_stream

from director.answers.results import write_results
from director.characterize.load import Load
from director.characterize.session_channels import read_session
from director.characterize.step_response import CannotTell, StepResponse, step_response
from director.session.manifest import PhaseSource
from drivers.contract import Channel, Status

S = 1e9


@dataclass(frozen=True)
class Device:
    """Publishes every `update_s` what it saw `delay_s` before over its window; it is read every `poll_s`."""

    update_s: float
    window_s: float
    delay_s: float
    poll_s: float
    noise: float = 2.0
    resolution: float = 0.1
    shape: str = "mean"
    stamped: bool = False
    tells_stale: bool = False
    told_period_s: float | None = None
    period_s: float = 10.0  # of the load
    cycles: int = 12
    on_watts: float = 450.0

    def observe(self, seed: int) -> StepResponse:
        t_ns, values, statuses, load = self.readings(seed)
        kind: Any = "counter" if self.shape == "counter" else "gauge"
        return step_response(
            t_ns, values, statuses, kind=kind, stamped=self.stamped, told_period_s=self.told_period_s, load=load
        )

    def readings(self, seed: int) -> tuple[Any, Any, Any, Load]:
        random = np.random.default_rng(seed)
        lasted = self.period_s / 2 * random.uniform(0.6, 1.4, 2 * self.cycles)
        edges_s = 3.0 + np.cumsum(lasted)
        updates_s = random.uniform(0, self.update_s) + np.cumsum(
            self.update_s * (1 + 0.02 * random.normal(size=int((edges_s[-1] + 5) / self.update_s)))
        )
        end = updates_s - self.delay_s
        step = self.on_watts - 50.0
        if self.shape == "counter":
            published = 50 * end + step * seconds_on(edges_s, end)
        elif self.shape == "low-pass":
            published = 50 + step * filtered(edges_s, end, self.window_s / 2)
        else:
            width = max(self.window_s, 1e-6)
            published = 50 + step * (seconds_on(edges_s, end) - seconds_on(edges_s, end - width)) / width
        published = published + self.noise * random.normal(size=len(published))
        published = np.round(published / self.resolution) * self.resolution
        read_s = updates_s if self.stamped else np.arange(updates_s[0] + 0.1, updates_s[-1], self.poll_s)
        seen = np.searchsorted(updates_s, read_s, side="right") - 1
        statuses = np.zeros(len(read_s), np.uint8)
        if self.tells_stale:
            statuses[1:][np.diff(seen) == 0] = Status.STALE
        return (read_s * S).astype(np.int64), published[seen], statuses, Load((edges_s * S).astype(np.int64))


def seconds_on(edges_s: Any, at_s: Any) -> Any:
    """Written in another way than the program's own: the sum of the parts of each on-time that lie before."""
    ons, offs = edges_s[::2], edges_s[1::2]
    return np.clip(at_s[:, None] - ons, 0, offs - ons).sum(axis=1)


def filtered(edges_s: Any, at_s: Any, tau_s: float) -> Any:
    """The sum of the filter's step responses, one for each edge."""
    signs = np.where(np.arange(len(edges_s)) % 2 == 0, 1.0, -1.0)
    return (signs * (1 - np.exp(-np.clip(at_s[:, None] - edges_s, 0, None) / tau_s))).sum(axis=1)


BMC = Device(1.0, 1.0, 0.3, 0.1, resolution=1.0)
LAZY = Device(1.0, 4.0, 0.5, 0.2, noise=1.0, resolution=1.0)
GPU = Device(0.1, 0.025, 0.05, 0.02)
INSTANT = Device(2.0, 0.0, 1.0, 0.2, resolution=1.0)
STAMPED = Device(1.0, 1.0, 0.4, 1.0, stamped=True)
FILTER = Device(1.0, 3.0, 0.2, 0.1, resolution=1.0, shape="low-pass")


DEVICES = [BMC, LAZY, GPU, INSTANT, STAMPED, FILTER, replace(BMC, tells_stale=True)]


def check_trials(device: Device, trials: int, least: int) -> None:
    """Of trials with edges, phases and noise of their own; and U is of use."""
    found = [device.observe(seed) for seed in range(trials)]
    delay = sum(abs(each.delay_s - device.delay_s) <= each.delay_u_s for each in found)
    window = sum(abs(each.window_s - device.window_s) <= each.window_u_s for each in found)
    assert (delay >= least, window >= least) == (True, True), (delay, window)
    for each in found:
        assert each.update_period_s == pytest.approx(device.update_s, rel=0.03)
        assert each.on_value == pytest.approx(device.on_watts, rel=0.02)
        assert each.off_value == pytest.approx(50, abs=0.02 * device.on_watts)
    useful = 0.25 * max(device.update_s, device.window_s) + device.poll_s
    assert np.median([each.delay_u_s for each in found]) < useful


@pytest.mark.parametrize("device", DEVICES)
def test_the_truth_lies_within_u(device: Device) -> None:
    check_trials(device, 5, 5)


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
def test_the_truth_lies_within_u_nineteen_times_of_twenty(device: Device) -> None:
    check_trials(device, 100, 95)


def test_the_update_period_lies_within_its_u() -> None:
    for device in (BMC, STAMPED):
        trials = [device.observe(seed) for seed in range(5)]
        inside = sum(
            found.update_period_s is not None
            and abs(found.update_period_s - device.update_s) <= found.update_period_u_s
            for found in trials
        )
        assert inside >= 4, inside


def test_the_shape_is_told() -> None:
    assert {FILTER.observe(seed).shape for seed in range(3)} == {"low-pass"}
    assert {LAZY.observe(seed).shape for seed in range(3)} == {"mean"}


def test_noise_is_that_of_the_values() -> None:
    found = replace(BMC, noise=5.0, resolution=0.001).observe(1)
    assert abs(found.noise - 5.0) <= 1.5 * found.noise_u


def test_a_counter_tells_its_delay() -> None:
    device = Device(0.5, 0.0, 0.12, 0.05, noise=0.0, resolution=0.001, shape="counter")
    trials = [device.observe(seed) for seed in range(5)]
    assert all(abs(found.delay_s - 0.12) <= found.delay_u_s < 0.1 for found in trials)
    assert all((found.shape, found.window_s) == ("counter", 0.0) for found in trials)
    assert all(found.on_value == pytest.approx(450, rel=0.01) for found in trials)


def test_where_polling_hides_the_update_the_delay_is_that_to_a_reading() -> None:
    device = Device(0.1, 0.5, 0.2, 0.1)
    trials = [device.observe(seed) for seed in range(5)]
    assert all(found.update_period_s is None for found in trials)
    assert all(abs(found.delay_s - (0.2 + 0.05)) <= found.delay_u_s for found in trials)


def test_a_hidden_update_period_that_the_driver_tells_is_not_counted_twice() -> None:
    trials = [Device(0.1, 0.5, 0.2, 0.1, told_period_s=0.1).observe(seed) for seed in range(5)]
    assert all(abs(found.delay_s - 0.2) <= found.delay_u_s for found in trials)


def test_edges_of_polling_do_not_shorten_the_period() -> None:
    """At 2.6 polls an update, values come two and three polls apart."""
    found = replace(BMC, update_s=0.26, window_s=0.26).observe(3)
    assert found.update_period_s == pytest.approx(0.26, rel=0.03)


def cut(device: Device, **changes: Any) -> None:
    t_ns, values, statuses, load = device.readings(1)
    given = {"t_ns": t_ns, "values": values, "statuses": statuses, "load": load, **changes}
    step_response(given["t_ns"], given["values"], given["statuses"], kind="gauge", stamped=False, load=given["load"])


def test_what_cannot_be_told_is_refused_with_a_reason() -> None:
    t_ns, values, statuses, load = BMC.readings(1)
    with pytest.raises(CannotTell, match="switched 4 times; 6 are needed: more --cycles"):
        cut(BMC, load=Load(load.edges_ns[:4]))
    with pytest.raises(CannotTell, match="there are 20 readings"):
        cut(BMC, t_ns=t_ns[:20], values=values[:20], statuses=statuses[:20])
    with pytest.raises(CannotTell, match="it showed 0 new values"):
        cut(BMC, values=np.full(len(values), 7.0))
    with pytest.raises(CannotTell, match=r"does not show.*heavier load"):
        cut(BMC, values=np.random.default_rng(1).normal(100, 5, len(values)))
    with pytest.raises(CannotTell, match=r"more slowly than can be told.*longer --period"):
        replace(BMC, window_s=20.0).observe(1)


def test_missing_readings_are_left_out() -> None:
    t_ns, values, statuses, load = BMC.readings(1)
    lost = np.random.default_rng(2).random(len(values)) < 0.2
    values[lost], statuses[lost] = np.nan, Status.MISSING
    found = step_response(t_ns, values, statuses, kind="gauge", stamped=False, load=load)
    assert abs(found.delay_s - 0.3) <= found.delay_u_s and abs(found.window_s - 1.0) <= found.window_u_s


def test_a_counter_without_a_value_is_told_and_not_worked_out(tmp_path: Path) -> None:
    counter = Channel(name="m/energy", device="m", quantity="energy", unit="J", kind="counter", scope="node")
    t_ns = np.arange(100, dtype=np.int64) * 10**9
    missing = np.full(100, Status.MISSING, np.uint8)
    file = made_stream(tmp_path, [counter], t_ns, [np.zeros(100, np.int64)], rate_hz=1.0, statuses=[missing])
    loads = [("load", (10 * i) * 10**9, (10 * i + 5) * 10**9) for i in range(1, 9)]
    made_marks(tmp_path, loads)
    sources = [PhaseSource(kind="marks", file="marks")]
    made_manifest(tmp_path, [file], (0, 99 * 10**9), phase_sources=sources)
    write_results(tmp_path)
    [finding] = read_session(tmp_path).findings
    assert finding.response is None and "had a value" in finding.reason
