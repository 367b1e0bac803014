"""The report over several hosts, on sessions whose energies can be worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_fleet_session import Marked, Meter, at, made_fleet, made_training

from director.answers.phase_intervals import IntervalMaker, join_hosts, phase_names
from director.answers.phase_totals import phase_totals
from director.answers.questions import Questions
from director.answers.results import write_results
from director.answers.summary import EnergyFigure, HostPhase, HostShare, OverHosts, Summary
from director.answers.terminal_table import print_summary
from director.cli import main
from director.phases.builder import build
from director.report_files.csv_rows import session_csv
from director.report_files.markdown import session_markdown
from director.report_page.page import session_html
from director.report_page.phase_strip import phase_strip
from director.session.files import SessionError, load_manifest
from director.session.fleet_record import Fleet, StageSpan
from director.session.manifest import Workload
from power_agent.messages import MarkEvent

BOTH = st.lists(st.lists(st.integers(0, 900), min_size=12, max_size=12), min_size=2, max_size=4)


def over(summary: Summary) -> OverHosts:
    assert isinstance(summary.over_hosts, OverHosts)
    return summary.over_hosts


def phase(summary: Summary, name: str) -> HostPhase:
    return next(p for p in over(summary).phases if p.name == name)


def share(summary: Summary, name: str, host: str) -> HostShare:
    return next(s for s in phase(summary, name).hosts if s.host == host)


def total(summary: Summary, name: str = "command") -> EnergyFigure:
    figure = next(p for p in summary.phases if p.name == name).total
    assert figure is not None
    return figure


def joules(figure: object) -> float:
    found = figure.joules  # type: ignore[attr-defined]
    assert found is not None
    return float(found)


def table_text(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    text = io.StringIO()
    print_summary(summary, text)
    return text.getvalue()


# Energies


def test_a_training_on_three_hosts(tmp_path: Path) -> None:
    """Host i: 100·(i + 1) W for 5 s (the last: 7 s) of each of 4 steps of 8 s, else 50 W."""
    summary = write_results(made_training(tmp_path))
    assert over(summary).hosts == ["node0", "node1", "node2"] and not over(summary).without_data
    of_command = [share(summary, "command", f"node{i}").energy for i in range(3)]
    assert [joules(e) for e in of_command] == pytest.approx([20 * 100 + 16 * 50, 20 * 200 + 16 * 50, 28 * 300 + 8 * 50])
    # while any host was in a step: 7 s of each
    of_steps = [share(summary, "step", f"node{i}") for i in range(3)]
    assert [joules(s.energy) for s in of_steps] == pytest.approx([4 * (500 + 100), 4 * (1000 + 100), 4 * 2100])
    assert [joules(s.own) for s in of_steps] == pytest.approx([2000, 4000, 8400])
    assert [(s.own.seconds if s.own else 0, s.phases) for s in of_steps] == [(20, 4), (20, 4), (28, 4)]
    assert [s.waiting and s.waiting.seconds for s in of_steps] == [8, 8, None]
    assert [joules(s.waiting) for s in of_steps[:2]] == pytest.approx([400, 400])
    assert [s.times_last for s in of_steps] == [0, 0, 4]
    steps = phase(summary, "step")
    assert steps.duration_imbalance is not None and steps.energy_imbalance is not None
    assert steps.duration_imbalance.ratio == pytest.approx(28 * 3 / 68)
    assert steps.energy_imbalance.ratio == pytest.approx(8400 * 3 / 14400)
    assert {steps.duration_imbalance.host, steps.energy_imbalance.host} == {"node2"}
    joined = steps.joined
    assert joined is not None and joined.waiting is not None
    assert (joined.count, joined.ranks, joined.incomplete, joined.undecided) == (4, 3, 0, 0)
    assert (joined.least_s, joined.median_s, joined.most_s, joined.late_s) == (5, 5, 7, 8)
    assert (joined.waiting.seconds, joined.waiting.joules) == (16, pytest.approx(800))
    [straggler] = joined.stragglers
    assert (straggler.host, straggler.rank, straggler.times_last, straggler.mean_late_s) == ("node2", 2, 4, 2)
    assert next(m for m in summary.metrics if m.name == "samples per joule").value == pytest.approx(32 / 16100)


@given(BOTH, st.data())
@settings(max_examples=25, deadline=None)
def test_hosts_add_up_to_the_total_and_phases_to_the_whole(watts: list[list[int]], data: st.DataObject) -> None:
    """12 s cut into phases by each rank, at its own whole seconds."""
    hosts = {f"h{i}": [Meter(w)] for i, w in enumerate(watts)}
    cuts = [sorted(data.draw(st.sets(st.integers(1, 11), max_size=4))) for _ in watts]
    phases: dict[tuple[str, int | None], list[Marked]] = {}
    for i, cut in enumerate(cuts):
        edges = [0, *cut, 12]
        phases[f"h{i}", i] = [Marked("part", a, b, n) for n, (a, b) in enumerate(pairwise(edges))]
    with TemporaryDirectory() as folder:
        session = made_fleet(Path(folder), hosts, phases, 12)
        summary = write_results(session)
        energies = pq.read_table(session / "energies.parquet").to_pandas()
    for name in ("command", "part"):  # parts cover the whole on every host
        shares = [share(summary, name, f"h{i}") for i in range(len(watts))]
        assert [joules(s.energy) for s in shares] == pytest.approx([sum(w) for w in watts])
        assert joules(total(summary, name)) == pytest.approx(sum(map(sum, watts)))
    own = energies[energies.phase > 0]
    for i, w in enumerate(watts):
        assert own[own.component == f"h{i}/wall"].joules.sum() == pytest.approx(sum(w))
        assert joules(share(summary, "part", f"h{i}").own) == pytest.approx(sum(w))
    waited = phase(summary, "part").joined
    assert waited is not None
    assert waited.waiting is None  # each goes on at once with its next part


@given(BOTH, st.data())
@settings(max_examples=25, deadline=None)
def test_energy_of_waiting_is_that_of_its_seconds(watts: list[list[int]], data: st.DataObject) -> None:
    ends = [data.draw(st.integers(1, 11)) for _ in watts]
    hosts = {f"h{i}": [Meter(w)] for i, w in enumerate(watts)}
    phases: dict[tuple[str, int | None], list[Marked]] = {
        (f"h{i}", i): [Marked("step", 0, end, 0)] for i, end in enumerate(ends)
    }
    with TemporaryDirectory() as folder:
        summary = write_results(made_fleet(Path(folder), hosts, phases, 12))
    for i, (w, end) in enumerate(zip(watts, ends, strict=True)):
        found = share(summary, "step", f"h{i}")
        assert joules(found.own) == pytest.approx(sum(w[:end]))
        if end < max(ends):
            assert joules(found.waiting) == pytest.approx(sum(w[end : max(ends)]))
        else:
            assert found.waiting is None


def test_devices_of_one_model_on_several_hosts_share_their_error(tmp_path: Path) -> None:
    """1 % of 1200 J each, of a constant power, so that there is no other term."""
    u = 0.01 * 1200 / math.sqrt(3)
    for models, expected in (
        (["A"] * 4, 2 * 4 * u),
        (["A", "B", "C", "D"], 2 * 2 * u),
        (["A", "A", "B", "B"], 2 * math.hypot(2 * u, 2 * u)),
    ):
        hosts = {f"h{i}": [Meter([100.0] * 12, model=model)] for i, model in enumerate(models)}
        summary = write_results(made_fleet(tmp_path / "-".join(models), hosts, {}, 12))
        assert total(summary).expanded_joules == pytest.approx(expected)
        assert [share(summary, "command", h).energy.expanded_joules for h in hosts] == pytest.approx([2 * u] * 4)  # type: ignore[union-attr]


def test_even_hosts_have_an_imbalance_of_one_and_its_u(tmp_path: Path) -> None:
    hosts = {f"h{i}": [Meter([100.0] * 12, model=f"M{i}")] for i in range(4)}
    phases: dict[tuple[str, int | None], list[Marked]] = {(h, i): [Marked("run", 0, 12)] for i, h in enumerate(hosts)}
    ratio = phase(write_results(made_fleet(tmp_path, hosts, phases, 12)), "run").energy_imbalance
    one = 2 * 0.01 / math.sqrt(3)  # U of a host's energy, as a share
    assert ratio is not None and ratio.ratio == pytest.approx(1)
    assert ratio.expanded == pytest.approx(math.hypot(one, one / 2))


def test_a_phase_that_one_host_marks_is_given_the_energy_of_all(tmp_path: Path) -> None:
    """As where only rank 0 marks epochs; of steps that all mark, each host's devices are given their own."""
    hosts = {"a": [Meter([100.0] * 12)], "b": [Meter([200.0] * 12)]}
    phases: dict[tuple[str, int | None], list[Marked]] = {
        ("a", 0): [Marked("epoch", 1, 7, 0), Marked("step", 2, 4, 0)],
        ("b", 1): [Marked("step", 2, 5, 0)],
    }
    session = made_fleet(tmp_path, hosts, phases, 12)
    summary = write_results(session)
    assert joules(total(summary, "epoch")) == pytest.approx(6 * 300)
    names = pq.read_table(session / "phases.parquet").to_pandas()
    assert names.host.tolist()[1:] == ["a", "b", "a"] or set(names.host.dropna()) == {"a", "b"}
    rows = pq.read_table(session / "energies.parquet").to_pandas()
    rows["name"], rows["host"] = names.name[rows.phase].to_numpy(), names.host[rows.phase].to_numpy()
    found = {(r.name, r.host, r.component): r.joules for r in rows.itertuples(index=False)}
    assert {key: value for key, value in found.items() if key[0] == "epoch"} == pytest.approx(
        {("epoch", "a", "a/wall"): 600, ("epoch", "a", "b/wall"): 1200}
    )
    assert {key: value for key, value in found.items() if key[0] == "step"} == pytest.approx(
        {("step", "a", "a/wall"): 200, ("step", "b", "b/wall"): 600}
    )
    manifest = load_manifest(session)
    begin = {row.name: int(row.begin_ns) for row in names.itertuples()}
    epoch, step = phase_totals(session, manifest, [("epoch", begin["epoch"]), ("step", begin["step"])])
    assert epoch is not None and epoch.joules == pytest.approx(1800)
    assert step is None  # stands for its own host, and is no total


def test_processes_of_one_number_on_two_hosts_are_told_apart(tmp_path: Path) -> None:
    summary = write_results(made_training(tmp_path))  # node0 and node2 mark as process 1, at the same instants
    steps = next(p for p in summary.phases if p.name == "step")
    assert (steps.count, steps.lane_count, steps.flagged) == (12, 4, 0)
    lanes = pq.read_table(tmp_path / "phases.parquet").to_pandas().lane.unique().tolist()
    assert sorted(lanes) == ["", "node0/1:0", "node1/2:0", "node2/1:0"]


def test_the_same_session_gives_the_same_bytes(tmp_path: Path) -> None:
    made_training(tmp_path)
    files = ("summary.json", "phases.parquet", "energies.parquet")
    write_results(tmp_path)
    first = [(tmp_path / name).read_bytes() for name in files]
    write_results(tmp_path)
    assert [(tmp_path / name).read_bytes() for name in files] == first


# What is missing


def missing_fleet(session: Path, late_by: int) -> Path:
    """60 s on three hosts: one reads from `late_by` s on, one has no readings at all."""
    hosts = {"a": [Meter([100.0] * 60)], "b": [Meter([200.0] * (60 - late_by), begin_s=late_by)], "c": []}
    phases: dict[tuple[str, int | None], list[Marked]] = {(h, i): [Marked("run", 0, 60)] for i, h in enumerate(hosts)}
    return made_fleet(session, hosts, phases, 60)


def test_a_host_that_joined_late_is_covered_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = write_results(missing_fleet(tmp_path, 15))
    late = share(summary, "run", "b").energy
    assert late is not None and late.coverage == pytest.approx(0.75)
    assert joules(late) == pytest.approx(60 * 200)  # the rest is given the mean
    assert joules(total(summary, "run")) == pytest.approx(60 * 300)
    text = table_text(summary, monkeypatch)
    assert "75.0% measured" in text and "b/wall: 75.0% of phase run was measured" in text.replace("\n", " ")


def test_a_host_of_which_too_little_is_known_leaves_no_total_but_a_sum_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = write_results(missing_fleet(tmp_path, 40))
    found = phase(summary, "run")
    assert total(summary, "run").joules is None
    assert share(summary, "run", "b").energy.joules is None  # type: ignore[union-attr]
    assert found.known is not None and found.known.joules == pytest.approx(6000) and found.known_hosts == 1
    text = table_text(summary, monkeypatch)
    assert "1 known hosts" in text and "no total is given" in text


@pytest.mark.parametrize("late_by", [15, 40])
def test_a_host_without_readings_is_missing_and_never_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late_by: int
) -> None:
    session = missing_fleet(tmp_path, late_by)
    summary = write_results(session)
    assert over(summary).hosts == ["a", "b"]
    assert [gap.host for gap in over(summary).without_data] == ["c"]
    assert share(summary, "run", "c").energy is None and share(summary, "run", "c").own is None
    assert "without c, where nothing was measured" in summary.scope_of_total
    assert any("nothing was measured of 1 of 3 hosts (c)" in warning for warning in summary.warnings)
    manifest = load_manifest(session)
    rows = [r for r in csv.DictReader(io.StringIO(session_csv(summary))) if r["component"] == "c"]
    assert [(r["kind"], r["joules"], r["coverage"]) for r in rows] == [("host", "", "")] * 2
    for text in (
        table_text(summary, monkeypatch),
        session_markdown(summary, manifest),
        session_html(session, manifest, summary),
    ):
        [row] = [line for line in text.splitlines() if "not measured" in line and ("c " in line or ">c<" in line)][:1]
        assert "0 J" not in row


def test_without_any_reading_there_is_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = made_fleet(
        tmp_path, {"a": [], "b": []}, {("a", 0): [Marked("run", 1, 5)], ("b", 1): [Marked("run", 1, 7)]}, 9
    )
    summary = write_results(session)
    assert over(summary).hosts == [] and len(over(summary).without_data) == 2
    joined = phase(summary, "run").joined
    assert joined is not None and joined.most_s == 6 and joined.waiting is None
    assert "not measured" in table_text(summary, monkeypatch)
    session_html(session, load_manifest(session), summary)


def test_one_host_says_nothing_of_hosts(tmp_path: Path) -> None:
    write_results(made_training(tmp_path, hosts=1))
    told = json.loads((tmp_path / "summary.json").read_bytes())
    assert "over_hosts" not in told and "scaling" not in told
    assert "joined" not in pq.read_schema(tmp_path / "phases.parquet").names


# The interconnect


def test_a_switch_that_is_measured_has_a_row_and_is_in_the_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outlet is read by a host, and is no part of it."""
    hosts = {"a": [Meter([100.0] * 10, "gpu0", "gpu"), Meter([40.0] * 10, "outlet7")], "b": [Meter([200.0] * 10)]}
    made_fleet(tmp_path, hosts, {}, 10)
    without = write_results(tmp_path)
    assert joules(total(without)) == pytest.approx(2400)  # the outlet is taken for what feeds the host's GPU
    summary = write_results(tmp_path, questions=Questions(interconnect=("a/outlet7",)))
    found = phase(summary, "command")
    assert joules(total(summary)) == pytest.approx(3400)
    assert found.interconnect is not None and found.interconnect.joules == pytest.approx(400)
    assert not found.interconnect.estimate and found.with_interconnect is None
    assert [joules(share(summary, "command", h).energy) for h in "ab"] == pytest.approx([1000, 2000])
    text = table_text(summary, monkeypatch)
    assert "2 hosts + switches" in text and "measured by a/outlet7, and in the total" in text


def test_an_estimated_interconnect_is_told_apart_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_training(tmp_path)
    summary = write_results(tmp_path, questions=Questions(interconnect_watts=100.0))
    found = phase(summary, "run")
    assert joules(total(summary, "run")) == pytest.approx(16100)  # as it was
    assert found.interconnect is not None and found.with_interconnect is not None
    assert (found.interconnect.joules, found.interconnect.expanded_joules) == (pytest.approx(3400), None)
    assert found.with_interconnect.joules == pytest.approx(19500)
    assert found.interconnect.estimate and found.with_interconnect.estimate
    manifest = load_manifest(tmp_path)
    for text in (table_text(summary, monkeypatch), session_markdown(summary, manifest)):
        lines = [line for line in text.splitlines() if "interconnect" in line and ("kJ" in line or "MJ" in line)]
        assert len(lines) == 3 and all("ESTIMATE" in line for line in lines)
        assert all("ESTIMATE in part" in line for line in text.splitlines() if "total with it" in line)
    assert "ESTIMATE, 100 W stated" in session_html(tmp_path, manifest, summary)
    rows = [r for r in csv.DictReader(io.StringIO(session_csv(summary))) if "interconnect" in r["kind"]]
    assert {r["estimate"] for r in rows} == {"true"} and len(rows) == 6


def test_a_name_that_is_no_device_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_training(tmp_path)
    with pytest.raises(SessionError, match=r"--interconnect node7: no such device .* node0/wall, node1/wall"):
        write_results(tmp_path, questions=Questions(interconnect=("node7",)))
    assert main(["report", str(tmp_path), "--interconnect", "node0/walls"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--interconnect", "a", "--interconnect-estimate", "5"]) == 2
    assert main(["report", str(tmp_path), "--interconnect-estimate", "-5"]) == 2


# How it is shown


@pytest.mark.parametrize("hosts", [3, 8, 9, 40])
def test_the_table_fits_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: int) -> None:
    summary = write_results(made_training(tmp_path, hosts, steps=2, slow=1))
    text = table_text(summary, monkeypatch)
    assert max(len(line) for line in text.splitlines() if not line.startswith("warning:")) <= 80
    command = text.partition("run ×")[0]
    shown = [f"node{i}" for i in range(hosts) if f"node{i} " in command]
    if hosts <= 8:
        assert shown == [f"node{i}" for i in range(hosts)]
    else:
        assert f"{hosts} hosts" in command and f"most: node{hosts - 1}" in command and "least: node0" in command
        assert f"{hosts - 2} more" in command
    assert "node1 rank 1: 2 of 2 times, 2.0 s after the median" in " ".join(text.split())


def test_csv_and_markdown_say_what_the_summary_says(tmp_path: Path) -> None:
    summary = write_results(made_training(tmp_path))
    rows = list(csv.DictReader(io.StringIO(session_csv(summary))))
    hosts = [r for r in rows if r["kind"] == "host" and r["phase"] == "step"]
    assert [float(r["joules"]) for r in hosts] == [joules(s.energy) for s in phase(summary, "step").hosts]
    totals = [float(r["joules"]) for r in rows if r["kind"] == "total" and r["phase"] == "step"]
    assert totals == pytest.approx([sum(float(r["joules"]) for r in hosts)])
    waiting = [r for r in rows if r["kind"] == "host waiting"]
    assert [(r["component"], float(r["duration_s"])) for r in waiting] == [("node0", 8.0), ("node1", 8.0)]
    text = session_markdown(summary, load_manifest(tmp_path))
    assert "| step | last | node2 rank 2: 4 of 4 times, 2.0 s after the median" in text


def test_names_of_hosts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    name = "<img src=x onerror=1>|*b*"
    hosts = {name: [Meter([100.0] * 10)], "b": [Meter([100.0] * 10)]}
    phases: dict[tuple[str, int | None], list[Marked]] = {
        (name, 0): [Marked("s", 1, 9, 0)],
        ("b", 1): [Marked("s", 1, 5, 0)],
    }
    session = made_fleet(tmp_path, hosts, phases, 10)
    summary = write_results(session)
    page = session_html(session, load_manifest(session), summary)
    assert "&lt;img src=x onerror=1&gt;" in page and "<img" not in page
    assert "<img" not in session_markdown(summary, load_manifest(session)).replace("\\<img", "")


def test_many_hosts_have_a_page_of_bounded_size(tmp_path: Path) -> None:
    summary = write_results(made_training(tmp_path, 200, steps=1))
    page = session_html(tmp_path, load_manifest(tmp_path), summary)
    assert len(page) < 3_000_000
    assert "136 more hosts, which used less" in page
    assert np.isfinite([joules(s.energy) for s in phase(summary, "step").hosts]).all()


def test_who_marked_is_said_beside_phases_over_time(tmp_path: Path) -> None:
    write_results(made_training(tmp_path))
    assert phase_strip(tmp_path, at(0)).who == ["", *(f"node{i} rank {i}" for i in (0, 0, 1, 1, 2, 2))]


# Meters that are read on another host


def metered_elsewhere(session: Path) -> Path:
    """A host that does nothing else reads a wall meter of node0, 300 W; GPUs of node0 and node1 draw 200 and 100 W."""
    meters = {
        "meters": [Meter([300.0] * 20)],
        "node0": [Meter([200.0] * 20, device="gpu0", scope="gpu")],
        "node1": [Meter([100.0] * 20, device="gpu0", scope="gpu")],
    }
    steps = {("node0", 0): [Marked("step", 1, 11, 0)], ("node1", 1): [Marked("step", 1, 15, 0)]}
    work = Workload(argv=["train"], cwd="/", host="node0", started_ns=at(0), ended_ns=at(20), exit_code=0)
    return made_fleet(session, meters, steps, 20, workload=work)


def test_a_meter_that_may_count_twice_is_told(tmp_path: Path) -> None:
    summary = write_results(metered_elsewhere(tmp_path))
    assert total(summary).joules == pytest.approx(20 * 600)
    assert "the total adds meters/wall and node0/gpu0" in summary.warnings[0]
    assert "report --measures meters/wall=node0" in summary.warnings[0]


def test_a_meter_on_another_host_stands_for_the_host_that_it_measures(tmp_path: Path) -> None:
    questions = Questions(measures=(("meters/wall", "node0"),))
    summary = write_results(metered_elsewhere(tmp_path), questions=questions)
    assert total(summary).joules == pytest.approx(20 * (300 + 100))
    assert over(summary).hosts == ["node0", "node1"] and over(summary).without_data == []
    assert joules(share(summary, "command", "node0").energy) == pytest.approx(20 * 300)
    step = share(summary, "step", "node0")
    assert (joules(step.own), joules(step.waiting)) == (pytest.approx(10 * 300), pytest.approx(4 * 300))
    [rest] = next(p for p in summary.phases if p.name == "command").not_explained
    assert (rest.name, rest.joules) == ("meters/wall not explained", pytest.approx(20 * 100))
    assert not any("counted twice" in warning for warning in summary.warnings)


def test_what_no_meter_measures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = str(metered_elsewhere(tmp_path))
    for said, told in (
        ("meters/wall=node7", "the session has no host node7; it has meters, node0, node1"),
        ("meters/plug=node0", "no such device gives power or energy; there are: meters/wall"),
        ("meters=node0", "is not HOST/DEVICE=HOST"),
    ):
        assert main(["report", session, "--measures", said]) == 2
        assert told in capsys.readouterr().err
    assert main(["report", session, "--measures", "meters/wall=node0", "--measures", "meters/wall=node1"]) == 2
    assert "it can be one" in capsys.readouterr().err


# Stages


def test_the_stage_before_the_measured_one_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ran for ranging from −40 s to −6 s, then for testing, with the marks of both in one file."""
    spans = [StageSpan(stage="ranging", begin_ns=at(-41), end_ns=at(-5)), StageSpan(stage="testing", begin_ns=at(-2))]
    fleet = Fleet(state="complete", director_host="a", director_boot_id="", stages=["ranging", "testing"], spans=spans)
    marked = [Marked("run", -39, -7), Marked("step", -38, -10, 0), Marked("run", 1, 19), Marked("step", 2, 9, 0)]
    session = made_fleet(tmp_path, {"a": [Meter([100.0] * 20)]}, {("a", 0): marked}, 20, fleet=fleet)
    summary = write_results(session)
    found = [(p.name, p.count, p.duration_s) for p in summary.phases]
    assert found == [("command", 1, 20), ("run", 1, 18), ("step", 1, 7)]
    assert summary.warnings == []
    [note] = summary.notes
    assert note.startswith("stage ranging came first and lasted 36.0 s; no figure here is of it")
    for text in (table_text(summary, monkeypatch), session_markdown(summary, load_manifest(session))):
        assert "tage ranging came first" in text


# Clocks


def test_edges_are_as_wrong_as_the_clocks_between_mark_and_reading() -> None:
    """Marks are placed within 2 ms; readings of each host within 1.5 ms."""
    marks = [
        MarkEvent(t_ns=t_ns, clock="monotonic", op=op, name=name, key=f"{host}{name}", lane=host, host=host)  # type: ignore[arg-type]
        for host, name in (("a", "step"), ("b", "step"), ("a", "epoch"))
        for op, t_ns in (("begin", 10_000_000), ("end", 90_000_000))
    ]
    table, _, _ = build(
        marks, begin_ns=0, end_ns=100_000_000, place=lambda _host, _clock, at: (at, np.full(len(at), 2_000_000))
    )
    names = phase_names(table)[0]
    maker = IntervalMaker(
        table, names, [], join_hosts(table, names, ["a", "b"]), lambda _, at: np.full(len(at), 1_500_000)
    )
    for host, epoch_ns in (("a", 500_000), ("b", 3_500_000)):
        found = maker.of(host)
        of_name = {name.name: found.intervals.time_bound_ns[found.names[i]] for i, name in enumerate(names)}
        assert of_name["epoch"].tolist() == [epoch_ns]  # marked on a alone
        assert of_name["step"].tolist() == [3_500_000]  # on both
        own = found.own[[name.name for name in names].index("step")]
        assert found.intervals.time_bound_ns[own].tolist() == [500_000]
    unbound = IntervalMaker(table, names, [], join_hosts(table, names, ["a", "b"]), lambda _, at: None).of("a")
    assert set(unbound.intervals.time_bound_ns.tolist()) == {0.0, 2_000_000.0}
