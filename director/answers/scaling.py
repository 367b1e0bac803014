"""A run against a smaller one: speed-up, parallel efficiency and energy for the same work, each with its U."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from director.answers.summary import PhaseGroup, Scaling, Summary
from director.energy.group_energy import union
from director.energy.interval_energy import COVERAGE_K
from director.session.files import SessionError

WORKS = ("tokens", "samples", "queries", "streams")  # what counts first


@dataclass(frozen=True)
class _Run:
    """One of the two runs."""

    session: Path
    summary: Summary
    phase: PhaseGroup
    ranks: int
    hosts: int
    expanded_s: float  # U of the duration


def scaling(session: Path, summary: Summary, against: Path) -> Scaling:
    """Compare a session whose results have just been computed with a smaller one.

    Raises:
        SessionError: they cannot be compared: why, and what to do.
    """
    if session.resolve() == against.resolve():
        raise SessionError(f"--against {against} is the session itself; name a run on fewer ranks or hosts")
    large, small = _run(session, summary), _run(against, _load(against))
    for run in (small, large):
        _check_end(run)
    if small.phase.name != large.phase.name:
        raise SessionError(
            f"{against} has the energy of its {small.phase.name}, {session} of its {large.phase.name}: mark a phase "
            "run in both, or in neither"
        )
    unit, n1, n = _sizes(small, large)
    work, w1, w, assumed = _work(small, large)
    t1, t = small.phase.duration_s, large.phase.duration_s
    if t1 <= 0 or t <= 0:
        raise SessionError(f"phase {large.phase.name} has no length in one of the runs: there is nothing to compare")
    speed_up, share = speed(t1, t, w1, w, small.expanded_s, large.expanded_s)
    note = _energy_note(small, large)
    ratio, ratio_u, estimate = None, None, False
    one, other = small.phase.total, large.phase.total
    if not note and one is not None and other is not None and one.joules and other.joules:
        ratio, ratio_u = energy_ratio(one.joules, other.joules, w1, w, one.expanded_joules, other.expanded_joules)
        estimate = one.estimate or other.estimate
    return Scaling(
        against=small.summary.session,
        phase=large.phase.name,
        unit=unit,
        smaller_n=n1,
        n=n,
        work=work,
        assumed=assumed,
        speed_up=speed_up,
        speed_up_expanded=speed_up * share,
        efficiency=speed_up * n1 / n,
        efficiency_expanded=speed_up * n1 / n * share,
        energy_ratio=ratio,
        energy_ratio_expanded=ratio_u,
        energy_estimate=estimate,
        energy_note=note,
    )


def speed(t1: float, t: float, w1: float, w: float, expanded1: float, expanded: float) -> tuple[float, float]:
    """Speed-up for the same work, and its U as a share of it. Work counts are exact."""
    return t1 * w / (t * w1), math.hypot(expanded1 / t1, expanded / t)


def energy_ratio(
    e1: float, e: float, w1: float, w: float, expanded1: float | None, expanded: float | None
) -> tuple[float, float | None]:
    """Energy for the same work, larger run by smaller, and its U: rather too large where meters share their error."""
    ratio = e * w1 / (e1 * w)
    if expanded1 is None or expanded is None:
        return ratio, None
    return ratio, abs(ratio) * math.hypot(expanded1 / e1, expanded / e)


def _load(session: Path) -> Summary:
    path = session / "summary.json"
    again = f"compute it: power-director report {session}"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except OSError as error:
        raise SessionError(f"--against: {path} cannot be read: {error.strerror}; {again}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SessionError(f"--against: {path} is damaged, or another version's: {error}; {again}") from error


def _run(session: Path, summary: Summary) -> _Run:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not summary.phases:
        raise SessionError(f"{session} has no phases: it was not measured to its end")
    phase = next((p for p in summary.phases if p.name == "run"), summary.phases[0])
    path = session / "phases.parquet"
    try:
        schema = pq.read_schema(path).names
        wanted = ["name", "begin_ns", "end_ns", "rank", "time_bound_ns", *(["host"] if "host" in schema else [])]
        table = pq.read_table(path, columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise SessionError(f"{path} cannot be read: {error}; compute it: power-director report {session}") from error
    rank = table["rank"].fill_null(-1).to_numpy()
    host = table["host"].combine_chunks().indices.fill_null(-1).to_numpy() if "host" in wanted else np.zeros(len(rank))
    pairs = np.unique(np.stack((host, rank), axis=1)[rank >= 0], axis=0)
    name = table["name"].combine_chunks()
    rows = np.flatnonzero(name.indices.to_numpy() == name.dictionary.to_pylist().index(phase.name))
    begin, end, bound = (table[column].to_numpy()[rows] for column in ("begin_ns", "end_ns", "time_bound_ns"))
    edges = 2 * len(union(begin, end)[0])
    over = summary.over_hosts
    hosts = 1 if isinstance(over, msgspec.UnsetType) else len(over.hosts) + len(over.without_data)
    u_s = float(bound.max(initial=0)) * 1e-9 / math.sqrt(3.0) * math.sqrt(edges)
    return _Run(session, summary, phase, len(pairs), hosts, COVERAGE_K * u_s)


def _check_end(run: _Run) -> None:
    summary, status = run.summary, run.phase.attributes.get("status", "success")
    if summary.exit_code or summary.signal is not None or status not in ("", "success"):
        raise SessionError(f"{run.session} did not end well, so its time and energy are of no whole run: run it again")


def _sizes(small: _Run, large: _Run) -> tuple[str, int, int]:
    unit = "ranks" if small.ranks and large.ranks else "hosts"
    n1, n = (small.ranks, large.ranks) if unit == "ranks" else (small.hosts, large.hosts)
    if n1 >= n:
        raise SessionError(
            f"{small.session} ran on {n1} {unit}, {large.session} on {n}: --against wants a run on fewer; for two runs "
            "of one size see docs/how-to/compare.md"
        )
    return unit, n1, n


def _work(small: _Run, large: _Run) -> tuple[str, float, float, list[str]]:
    """What both runs count, the two amounts, and what is assumed."""
    one, other = _told(small), _told(large)
    for work in WORKS:
        for name, amount in other.get(work, {}).items():
            if name in one.get(work, {}):
                return work, one[work][name], amount, [f"{work} are those of phase {name}, summed over ranks"]
    for run, told in ((small, one), (large, other)):
        for work, names in told.items():
            raise SessionError(
                f"{run.session} tells {work} in phase {next(iter(names))}, and the other run does not: whether both "
                "did the same work is unknown. Mark the same work in the same phase of both (docs/marks.md)"
            )
    return "", 1.0, 1.0, ["both runs did the same work: neither tells what it did"]


def _told(run: _Run) -> dict[str, dict[str, float]]:
    """Amounts by kind of work and phase name; the chief phase comes first."""
    found: dict[str, dict[str, float]] = {}
    for phase in (run.phase, *run.summary.phases):
        for work, amount in phase.work.items():
            if amount > 0:
                found.setdefault(work, {}).setdefault(phase.name, amount)
    return found


def _energy_note(small: _Run, large: _Run) -> str:
    """Why energies cannot be compared; empty: they can."""
    for run in (small, large):
        total, over = run.phase.total, run.summary.over_hosts
        if total is None or not total.joules or total.joules <= 0:
            return f"no energy is known of {run.summary.session}"
        if not isinstance(over, msgspec.UnsetType) and over.without_data:
            return f"{run.summary.session} has hosts of which nothing was measured"
    scopes = [_scopes(run.phase) for run in (small, large)]
    if scopes[0] != scopes[1]:
        return f"the smaller run measured {' + '.join(scopes[0])}, this one {' + '.join(scopes[1])}"
    return ""


def _scopes(phase: PhaseGroup) -> list[str]:
    return sorted({figure.scope for figure in phase.components})
