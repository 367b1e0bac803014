"""From exchanges to energies: what is kept of them, written, read back, and what it does to a session's figures."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_fleet_session import ORIGIN_NS, Marked, Meter, at, made_fleet
from simulated_network import S, SimulatedHost, exchanges, fixed, jittery

from director.answers.results import write_results
from director.answers.summary import Summary
from director.fleet.clock_sync import BEFORE_NS, MOST_HOSTS, MOST_KEPT, ClockSync
from director.session.clock_model import WALL_APART_NS, SyncedClock
from director.session.files import load_manifest, store_manifest
from director.session.ingest import ingest
from director.session.session_clocks import SessionClocks
from director.session.sync_file import (
    Clocks,
    Exchanges,
    StateLine,
    SyncFileError,
    append,
    read_parquet,
    read_spool,
    sync_spool,
    write_parquet,
)
from power_agent.wire.messages import ClockExchange, Heartbeat

QUIET = jittery(0.1, 0.02)
HOURS_NS = 3 * 3600 * S + 7  # between the two hosts' boots


def messages(found: Exchanges, boot_id: str = "b1") -> list[ClockExchange]:
    columns = (found.t1.tolist(), found.t2.tolist(), found.t3.tolist(), found.t4.tolist())
    return [
        ClockExchange(t1_ns=t1, t2_ns=t2, t3_ns=t3, t4_ns=t4, boot_id=boot_id)
        for t1, t2, t3, t4 in zip(*columns, strict=True)
    ]


class Director:
    """A ClockSync whose time is that of the exchanges it is given."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.told: list[str] = []
        self.sync = ClockSync("director", self.told.append, lambda: self.now_ns)

    def hear(self, host: str, found: list[ClockExchange]) -> None:
        for exchange in found:
            self.now_ns = max(self.now_ns, exchange.t3_ns + 1000)
            self.sync.on_exchange(host, exchange)


def kept(path: Path) -> list[tuple[int, int, int, int]]:
    return [row for _, row in read_spool(path)[0]]


def test_of_each_burst_the_fastest_ways_are_kept_from_before_the_session_to_its_end(tmp_path: Path) -> None:
    found = exchanges(SimulatedHost(), 400, jittery(1, 5), jittery(1, 5))
    heard = messages(found)
    half = len(heard) // 2
    director = Director()
    director.hear("node0", heard[:half])
    director.sync.record("s", tmp_path, ["node0", "node1"])
    director.hear("node0", heard[half:])
    director.sync.end("s")
    director.hear(
        "node0", messages(exchanges(SimulatedHost(begin_ns=6000 * S, host_begin_ns=1077 * S), 20, QUIET, QUIET))
    )
    rows = kept(sync_spool(tmp_path, "node0"))
    assert set(rows) <= {(e.t1_ns, e.t2_ns, e.t3_ns, e.t4_ns) for e in heard}
    assert len(rows) <= 2 * 100 and not sync_spool(tmp_path, "node1").exists()
    begin_ns = heard[half].t2_ns
    assert begin_ns - BEFORE_NS - 5 * S <= rows[0][1] <= begin_ns - BEFORE_NS + 10 * S
    # What is kept says all that the bursts say: at every instant the bound is the same as of all exchanges.
    everything = messages(found)
    late = [e for e in everything if e.t1_ns >= rows[0][0]]
    whole = SyncedClock(Exchanges(*np.array([(e.t1_ns, e.t2_ns, e.t3_ns, e.t4_ns) for e in late], np.int64).T))
    thin = SyncedClock(Exchanges(*np.array(rows, np.int64).T))
    when = np.arange(rows[0][0], rows[-1][0], S)
    assert np.median(thin.bound(when) / whole.bound(when)) == pytest.approx(1, abs=0.02)


def test_what_cannot_be_is_refused_and_memory_is_bounded(tmp_path: Path) -> None:
    director = Director()
    director.now_ns = 1000 * S
    good = {"t1_ns": 5, "t2_ns": 999 * S, "t3_ns": 999 * S + 10, "t4_ns": 100}
    for wrong in (
        {"t4_ns": 4},  # an answer before the question
        {"t3_ns": 999 * S - 1},
        {"t4_ns": 10},  # under way for less than the director took
        {"t3_ns": 1001 * S},  # of the future
        {"t2_ns": 100 * S},  # long ago
        {"t4_ns": 1 << 61},
    ):
        director.sync.on_exchange("node0", ClockExchange(**{**good, **wrong}))
    assert director.sync.refused == 6 and director.sync.state("node0") is None
    director.hear("node0", messages(exchanges(SimulatedHost(), 4 * 300, QUIET, QUIET)))
    assert len(director.sync._hosts["node0"].recent) == MOST_KEPT


def test_the_state_now_is_told_with_its_age(tmp_path: Path) -> None:
    director = Director()
    host = SimulatedHost(drift=20e-6)
    director.hear("node0", messages(exchanges(host, 100, QUIET, QUIET)))
    state = director.sync.state("node0")
    assert state is not None and state.age_s < 0.01 and state.jumps == 0
    director.now_ns += 50 * S
    old = director.sync.state("node0")
    assert old is not None and old.age_s == pytest.approx(50, abs=0.01)
    now = np.array([director.now_ns], np.int64)
    for told in (state, old):
        assert told.bound_ns < 1_000_000
    assert abs(old.offset_ns - int((now - host.at(now))[0])) <= old.bound_ns + 200_000 * 20e-6 + 10
    assert old.bound_ns > state.bound_ns + 50 * S * 5e-6
    assert old.drift == pytest.approx(-20e-6, abs=3e-6)


def test_a_full_disk_is_told_once_and_what_waits_is_written_later(tmp_path: Path) -> None:
    director = Director()
    director.sync.record("s", tmp_path, ["node0"])
    director.sync.record("other", tmp_path / ".", ["node1"])
    blocked = sync_spool(tmp_path, "node0")
    blocked.mkdir()  # whoever writes there gets an error
    heard = messages(exchanges(SimulatedHost(), 40, QUIET, QUIET))
    director.hear("node0", heard[:60])
    director.sync._write()
    director.sync._write()
    assert len(director.told) == 1 and str(blocked) in director.told[0]
    blocked.rmdir()
    director.hear("node0", heard[60:])
    director.sync.end("s")
    rows = kept(blocked)
    assert rows[0][0] == heard[0].t1_ns or rows[0][0] <= heard[11].t1_ns
    assert rows[-1][0] >= heard[-12].t1_ns


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 2000), noise=st.binary(max_size=40))
def test_a_torn_or_damaged_file_gives_what_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("s") / "node0.sync"
    clocks = Clocks(boot_id="b1", reference_boot_id="r")
    rows = [(i, i + 1, i + 2, i + 3) for i in range(40)]
    append(path, [clocks, *rows, StateLine(clock_state={"chrony": "x"})])
    path.write_bytes(path.read_bytes()[:cut] + noise)
    before, _ = read_spool(path)
    assert {row for _, row in before[:-1]} <= {*rows}  # of noise, one line at most may look like one
    append(path, [clocks, (7, 8, 9, 10)])
    after, state = read_spool(path)
    assert after[-1] == (clocks, (7, 8, 9, 10)) and state in ({}, {"chrony": "x"})


def test_a_disk_that_is_full_at_the_end_of_a_session_loses_no_exchange(tmp_path: Path) -> None:
    director = Director()
    director.sync.record("s", tmp_path, ["node0"])
    director.hear("node0", messages(exchanges(SimulatedHost(), 50, QUIET, QUIET)))
    path = sync_spool(tmp_path, "node0")
    path.mkdir()  # nothing can be written there
    director.sync.end("s")
    assert len(director.told) == 1
    path.rmdir()
    director.sync.end("s")
    last = director.sync._hosts["node0"].burst
    assert last is not None and kept(path)[-1][0] == last.kept()[-1].t1_ns
    assert len(kept(path)) > 10


FULL = """
import resource, signal, sys
from pathlib import Path
from director.session.sync_file import append, read_spool, Clocks
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    append(path, [Clocks(boot_id="a", reference_boot_id="b"), *[(i, i, i, i) for i in range(1000)]])
except OSError:
    print("told")
"""


def test_a_disk_that_takes_a_part_alone_is_told_of(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FULL, str(tmp_path / "x.sync")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout == "told\n", done.stderr
    assert (tmp_path / "x.sync").stat().st_size == 1000
    append(tmp_path / "x.sync", [(7, 7, 7, 7)])
    assert kept(tmp_path / "x.sync")[-1] == (7, 7, 7, 7)


def test_hosts_that_are_made_up_leave_room_for_others() -> None:
    director = Director()
    (exchange,) = messages(exchanges(SimulatedHost(), 1, QUIET, QUIET))[:1]
    for number in range(MOST_HOSTS + 10):
        director.hear(f"made-up-{number}", [exchange])
    director.hear("node0", [exchange])
    assert len(director.sync._hosts) == MOST_HOSTS and director.sync.state("node0") is not None


def test_another_boot_is_another_clock(tmp_path: Path) -> None:
    """A host that is started again counts from 0: its exchanges are kept, and not fitted with those before."""
    first = exchanges(SimulatedHost(begin_ns=9000 * S, host_begin_ns=5000 * S), 60, QUIET, QUIET)
    second = SimulatedHost(begin_ns=9100 * S, host_begin_ns=20 * S)
    director = Director()
    director.sync.record("s", tmp_path, ["node0"])
    director.hear("node0", messages(first, "b1"))
    director.hear("node0", messages(exchanges(second, 60, QUIET, QUIET), "b2"))
    state = director.sync.state("node0")
    assert state is not None and state.jumps == 0 and state.offset_ns == pytest.approx(9080 * S, abs=S // 1000)
    director.sync.end("s")
    write_parquet(tmp_path / "sync.parquet", read_spool(sync_spool(tmp_path, "node0"))[0])
    for boot_id, offset_ns in (("b1", 4000 * S), ("b2", 9080 * S)):
        model = SyncedClock(read_parquet(tmp_path / "sync.parquet", boot_id, "director"))
        assert model.jumps == []
        assert model.offset(np.array([30 * S]))[0] == pytest.approx(offset_ns, abs=2 * S)
    assert len(read_parquet(tmp_path / "sync.parquet", "b1", "another director")) == 0
    with pytest.raises(SyncFileError, match="none"):
        read_parquet(tmp_path / "none", "", "")


# --- in a session ------------------------------------------------------------------------------------------------

HOST = SimulatedHost(begin_ns=ORIGIN_NS - 60 * S, host_begin_ns=HOURS_NS, drift=50e-6)


def made(folder: Path, *, sync: Exchanges | None, walls: bool = True, own_marks: bool = True) -> Path:
    """node0 has the director's clock; node1's began at another time and runs fast. 100 W, in step i 100·(i + 1) W more.

    Steps last 5 s, from 10, 20 and 30 s on. node1 marks them where `own_marks`, else node0.
    """
    watts = [100.0] * 50
    for i in range(3):
        watts[10 + 10 * i : 15 + 10 * i] = [200.0 + 100 * i] * 5
    marks = [Marked("step", 10 + 10 * i, 15 + 10 * i, i) for i in range(3)]
    marker = "node1" if own_marks else "node0"
    made_fleet(folder, {"node0": [Meter([100.0] * 50)], "node1": [Meter(watts)]}, {(marker, 0): marks}, 50)
    manifest = load_manifest(folder)
    near, far = manifest.hosts
    _on_host_clock(folder, far.streams[0].file, ["t_ns"])
    if own_marks:
        for path in (folder / "marks/node1").iterdir():
            lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
            for line in lines:
                for name in ("t_ns", "begin_ns"):
                    if name in line:
                        line[name] = int(HOST.at(np.array([line[name]]))[0])
            path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    files = {}
    for host, clock in ((near, SimulatedHost(begin_ns=0, host_begin_ns=0)), (far, HOST)):
        if walls:
            session = ORIGIN_NS + np.arange(-2, 60) * S
            name = f"traces/{host.name}/clock.parquet"
            columns = {"monotonic_ns": clock.at(session), "wall_ns": session + 10**18, "bracket_ns": session * 0 + 500}
            pq.write_table(_table(columns), folder / name)
            files[host.name] = name
    if sync is not None:
        clocks = Clocks(boot_id="b1", reference_boot_id="director")
        columns = (sync.t1.tolist(), sync.t2.tolist(), sync.t3.tolist(), sync.t4.tolist())
        write_parquet(folder / "traces/node1/sync.parquet", [(clocks, row) for row in zip(*columns, strict=True)])
    replace = msgspec.structs.replace
    hosts = [
        replace(near, boot_id="director", clock_file=files.get("node0", "")),
        replace(
            far,
            boot_id="b1",
            clock_file=files.get("node1", ""),
            sync_file="traces/node1/sync.parquet" if sync is not None else "",
        ),
    ]
    store_manifest(folder, replace(manifest, hosts=hosts, reference_boot_id="director"))
    return folder


def _table(columns: dict[str, np.ndarray]) -> object:
    import pyarrow as pa

    return pa.table(columns)


def _on_host_clock(folder: Path, file: str, names: list[str]) -> None:
    table = pq.read_table(folder / file)
    for name in names:
        at_host = HOST.at(table.column(name).to_numpy())
        table = table.set_column(table.schema.get_field_index(name), name, [at_host])
    pq.write_table(table, folder / file)


def step(summary: Summary) -> tuple[float, float]:
    """Energy of all steps on node1, and its sync term."""
    (group,) = [p for p in summary.phases if p.name == "step"]
    (figure,) = [c for c in group.components if c.name.startswith("node1/")]
    assert figure.joules is not None
    return figure.joules, figure.terms["sync"]


STEPS_J = 5 * (200 + 300 + 400)


def test_readings_and_marks_of_another_clock_meet_on_the_sessions(tmp_path: Path) -> None:
    summary = write_results(made(tmp_path / "a", sync=exchanges(HOST, 120, QUIET, QUIET)))
    joules, of_own = step(summary)
    assert joules == pytest.approx(STEPS_J, rel=1e-3)
    assert not [w for w in summary.warnings if "clock" in w]
    # Marked on the other host, both bounds count; its own marks and readings bear one clock.
    summary = write_results(made(tmp_path / "b", sync=exchanges(HOST, 120, QUIET, QUIET), own_marks=False))
    joules, of_other = step(summary)
    assert joules == pytest.approx(STEPS_J, rel=1e-3)
    assert of_own < of_other
    # A slow network: the same energy, and a larger U with a warning.
    slow = write_results(made(tmp_path / "c", sync=exchanges(HOST, 120, fixed(20), fixed(20)), own_marks=False))
    joules, of_slow = step(slow)
    assert joules == pytest.approx(STEPS_J, rel=1e-3)
    # Six edges of 200 to 400 W inside and 100 W outside, each known to 20 ms: at least 20 ms/√3 × 200 W
    assert of_slow > 0.020 / 3**0.5 * 200
    assert [w for w in slow.warnings if "the clock of node1 is known to within 0.02" in w]


def test_without_exchanges_wall_clocks_tie_the_hosts_and_nothing_is_discarded(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", sync=None, own_marks=False)
    summary = write_results(folder)
    joules, sync = step(summary)
    assert joules == pytest.approx(STEPS_J, rel=1e-3)
    assert sync > 1.0 / 3**0.5 * 200
    assert [w for w in summary.warnings if "the clock of node1 is tied by wall time alone" in w]
    clocks = SessionClocks(folder, load_manifest(folder))
    session = np.array([at(10), at(40)])
    found, bound = clocks.to_session("node1", HOST.at(session))
    assert np.abs(found - session).max() < 100_000 and (bound >= WALL_APART_NS).all()
    assert np.abs(clocks.to_host("node1", session) - HOST.at(session)).max() < 100_000


def test_a_host_that_nothing_ties_is_told_of_and_the_others_stay(tmp_path: Path) -> None:
    summary = write_results(made(tmp_path / "s", sync=None, walls=False, own_marks=False))
    (command,) = [p for p in summary.phases if p.name == "command"]
    joules = {c.name.split("/")[0]: c.joules for c in command.components}
    assert joules["node0"] == pytest.approx(5000, rel=1e-3) and joules["node1"] is None
    assert [w for w in summary.warnings if "the clock of node1 cannot be tied to the session's" in w]


def test_a_damaged_file_of_exchanges_is_as_none(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", sync=exchanges(HOST, 120, QUIET, QUIET))
    (folder / "traces/node1/sync.parquet").write_bytes(random.Random(1).randbytes(500))
    summary = write_results(folder)
    assert [w for w in summary.warnings if "tied by wall time alone" in w and "sync.parquet" in w]


def test_a_step_of_any_hosts_wall_clock_is_flagged(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", sync=exchanges(HOST, 120, QUIET, QUIET))
    path = folder / "traces/node1/clock.parquet"
    table = pq.read_table(path)
    wall = table.column("wall_ns").to_numpy().copy()
    wall[30:] += 2 * S
    pq.write_table(table.set_column(1, "wall_ns", [wall]), path)
    summary = write_results(folder)
    assert [w for w in summary.warnings if "the wall clock of node1 was set by +2.000 s" in w]
    assert step(summary)[0] == pytest.approx(STEPS_J, rel=1e-3)


def test_ingest_makes_a_trace_of_the_exchanges(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", sync=None)
    manifest = load_manifest(folder)
    director = Director()
    director.sync.record("s", folder, ["node1"])
    director.sync.on_heartbeat("node1", Heartbeat(t_ns=1, clock_state={"chrony": "10.0.0.1, stratum 2"}))
    director.hear("node1", messages(exchanges(HOST, 120, QUIET, QUIET)))
    director.sync.close()
    store_manifest(folder, msgspec.structs.replace(manifest, state="ingesting"))
    host = ingest(folder, "complete").hosts[1]
    assert host.sync_file == "traces/node1/sync.parquet" and host.clock_state == {"chrony": "10.0.0.1, stratum 2"}
    assert "traces/node1/sync.parquet" in load_manifest(folder).checksums
    assert not sync_spool(folder, "node1").exists()
    session = np.array([at(0), at(50)])
    found, bound = SessionClocks(folder, load_manifest(folder)).to_session("node1", HOST.at(session))
    assert (np.abs(found - session) <= bound).all() and bound.max() < 250_000
