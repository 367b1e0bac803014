"""The sampling process as its users meet it: a real process, a real driver of another package, a real disk."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_device
import msgspec
import pytest
from small_disk import SmallDisk

from power_agent.messages import Ready, ReplayClockSpec, SamplerSpec, Stream
from power_agent.row_format import row_struct
from power_agent.sampler_client import SamplerClient, SamplerFailed
from power_agent.spool import SpoolReader

DEADLINE_S = 20.0
S = 1_000_000_000
SIMULATORS = Path(fake_device.__file__).parent


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"never happened: {what}"
        time.sleep(0.005)


class Setup:
    """Starts samplers on fake devices."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = directory / "spool.db"
        self.journal = directory / "journal"

    def spec(self, drivers: list[str], **settings: str) -> SamplerSpec:
        return SamplerSpec(
            spool=str(self.spool),
            host="node0",
            drivers=drivers,
            settings={"fake": {"journal": str(self.journal), **settings}},
        )

    def start(self, spec: SamplerSpec) -> SamplerClient:
        return SamplerClient.start(spec, self.directory)[0]

    def readings(self) -> list[int]:
        """The instants at which the first fake device was really read."""
        return [int(line) for line in self.journal.read_text().split()] if self.journal.exists() else []

    def rows(self, stream: Stream) -> list[tuple[int, ...]]:
        reader = SpoolReader(self.spool)
        unpack = row_struct(stream.channels).iter_unpack
        rows = [row for _, packed in reader.batches(stream.id) for row in unpack(packed)]
        reader.close()
        return rows

    def instants(self, stream: Stream) -> list[int]:
        return [row[0] for row in self.rows(stream)]

    def meta(self) -> dict[str, str]:
        reader = SpoolReader(self.spool)
        meta = reader.meta()
        reader.close()
        return meta


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    fake_device.install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(SIMULATORS)]))
    return Setup(tmp_path)


@pytest.fixture
def work() -> Iterator[subprocess.Popen[bytes]]:
    """A workload that lasts until the test ends it."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", 8)
    yield disk
    disk.close()


def test_after_a_full_disk_no_reading_is_counted_that_is_not_there(setup: Setup, small_disk: SmallDisk) -> None:
    """Whoever takes over from a sampler that is killed just then counts on from the ledger that it left."""
    if not small_disk.is_small:
        pytest.skip("needs the right to mount a file system")
    setup.spool = small_disk.path / "spool.db"
    client = setup.start(setup.spec(["fake"], hz="100"))
    (stream,) = client.ready.streams
    for _ in range(2):  # the first rows that find no place, and those that come while they wait
        enough = len(setup.readings()) + 100
        small_disk.fill(0.2)
        eventually(lambda enough=enough: len(setup.readings()) > enough, "readings on a full disk")
    small_disk.free()
    whole, most_over = len(setup.readings()), 0
    reader = SpoolReader(setup.spool)

    def caught_up() -> bool:
        nonlocal most_over
        (ticks,) = reader.ticks()
        rows = len(setup.instants(stream))
        most_over = max(most_over, ticks.taken + ticks.late + ticks.extra - ticks.dropped_rows - rows)
        return rows > whole + 100

    eventually(caught_up, "all readings in the spool")
    assert any("full" in event.text for event in reader.logged_events())
    reader.close()
    client.stop(10)
    assert most_over <= 10  # taken while the ledger was being asked


def test_a_measurement_from_start_to_stop(setup: Setup, work: subprocess.Popen[bytes]) -> None:
    client = setup.start(setup.spec(["fake", "nonesuch"], hz="100"))
    (stream,) = client.ready.streams
    states = {state.driver: state for state in client.ready.drivers}
    assert (stream.driver, stream.group, stream.rate_hz) == ("fake", "power", 100.0)
    assert states["fake"].usable
    assert not states["nonesuch"].usable and "nonesuch" in states["nonesuch"].reason
    # Half the window of 0.1 s, and two updates of 0.05 s, are below the least tail.
    assert client.ready.tail_s == 0.2
    assert setup.readings()  # ready means that the first row is there
    client.work_started(work.pid)
    eventually(lambda: len(setup.readings()) > 30, "30 readings")
    work.kill()
    work.wait()
    client.edge()
    client.stop(10)
    assert not client.alive()
    assert not setup.spool.with_name("spool.db-wal").exists()

    reader = SpoolReader(setup.spool)
    (count,) = reader.ticks()
    meta = reader.meta()
    assert count.due == count.taken + count.late + count.missed
    # The instants at start, edge and stop may be served by one reading where they fall together.
    assert 1 <= count.extra <= 3
    assert meta["work_pid"] == str(work.pid)
    assert int(meta["started_ns"]) <= setup.readings()[0] <= setup.readings()[-1] <= int(meta["finished_ns"])
    assert meta["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(reader.clock()) >= 2
    assert reader.events() == []
    reader.close()
    rows = setup.rows(stream)
    assert [row[0] for row in rows] == setup.readings()
    assert [row[3] for row in rows] == list(range(len(rows)))
    assert {(row[2], row[4]) for row in rows} == {(fake_device.POWER_W, b"\0\0")}
    assert len(rows) == count.taken + count.late + count.extra
    assert "prints to standard output" in (setup.directory / "sampler.log").read_text()


def test_rates_are_asked_for_by_group_and_by_driver_and_clipped(setup: Setup) -> None:
    spec = SamplerSpec(
        spool=str(setup.spool),
        host="n",
        drivers=["fake", "fake2"],
        rates_hz={"fake.power": 50.0, "fake": 5.0, "fake2": 1e6, "nvlm": 3.0, "fake.pwr": 3.0},
    )
    client = setup.start(spec)
    assert {stream.driver: stream.rate_hz for stream in client.ready.streams} == {"fake": 50.0, "fake2": 1000.0}
    client.stop(10)
    reader = SpoolReader(setup.spool)
    texts = {event.source: [] for event in reader.events()}
    for event in reader.events():
        texts[event.source].append(event.text)
    reader.close()
    assert len(texts["rates"]) == 2 and "'fake.pwr'" in texts["rates"][0] and "'nvlm'" in texts["rates"][1]
    assert texts["fake2.power"] == ["sampled at 1000 Hz, its highest rate, not at 1e+06 Hz"]


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_sampler_loses_less_than_a_second(setup: Setup, seed: int) -> None:
    client = setup.start(setup.spec(["fake"], hz="200"))
    (stream,) = client.ready.streams
    enough = random.Random(seed).randrange(100, 250)
    eventually(lambda: len(setup.readings()) > enough, "enough readings")
    os.kill(int(setup.meta()["pid"]), signal.SIGKILL)
    eventually(lambda: not client.alive(), "its death")
    with pytest.raises(SamplerFailed, match=r"gone \(status -9\)"):
        client.edge()
    with pytest.raises(SamplerFailed):
        client.stop(1)
    taken, kept = setup.readings(), setup.instants(stream)
    assert kept == taken[: len(kept)]
    assert taken[-1] - kept[-1] < 1 * S
    reader = SpoolReader(setup.spool)
    (count,) = reader.ticks()
    assert count.due == count.taken + count.late + count.missed >= len(kept)
    reader.close()


def test_a_sampler_left_alone_goes_on_to_the_end_of_the_work(setup: Setup, work: subprocess.Popen[bytes]) -> None:
    stream, process = start_by_a_director_that_dies(setup, work.pid)
    before = len(setup.readings())
    eventually(lambda: len(setup.readings()) > before + 30, "readings after the director's death")
    work.kill()  # not waited for: a zombie has ended, too
    eventually(lambda: "finished_ns" in setup.meta(), "its end")
    meta = setup.meta()
    ended_ns = int(meta["work_ended_ns"])
    instants = setup.instants(stream)
    assert instants == setup.readings()
    assert instants[-1] >= ended_ns + S // 5  # the tail of 0.2 s
    eventually(lambda: not process_lives(process), "the end of the process")


def test_a_sampler_left_alone_without_work_ends_at_once(setup: Setup) -> None:
    stream, process = start_by_a_director_that_dies(setup, None)
    eventually(lambda: not process_lives(process), "the end of the process")
    meta = setup.meta()
    assert "finished_ns" in meta and "work_ended_ns" not in meta
    assert setup.instants(stream) == setup.readings()


def start_by_a_director_that_dies(setup: Setup, work_pid: int | None) -> tuple[Stream, int]:
    """Start a sampler from a process that exits without stopping it: its stream and its pid."""
    spec = setup.spec(["fake"], hz="100")
    ready_file = setup.directory / "ready.json"
    program = f"""
import msgspec, os
from pathlib import Path
from power_agent.messages import SamplerSpec
from power_agent.sampler_client import SamplerClient
spec = msgspec.convert({msgspec.to_builtins(spec)!r}, SamplerSpec)
client, _ = SamplerClient.start(spec, Path({str(setup.directory)!r}))
Path({str(ready_file)!r}).write_bytes(msgspec.json.encode(client.ready))
if {work_pid!r} is not None:
    client.work_started({work_pid!r})
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], timeout=DEADLINE_S, check=True)
    ready = msgspec.json.decode(ready_file.read_bytes(), type=Ready)
    return ready.streams[0], int(setup.meta()["pid"])


def process_lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_device_that_hangs_delays_no_other(setup: Setup) -> None:
    release = setup.directory / "release"
    spec = SamplerSpec(
        spool=str(setup.spool),
        host="n",
        drivers=["fake", "fake2"],
        settings={
            "fake": {"hz": "100", "journal": str(setup.journal)},
            "fake2": {"hz": "100", "hang_from": "0", "release_file": str(release)},
        },
    )
    client = setup.start(spec)
    # The sampler waited for the first reading for a while, and then got on without.
    states = {state.driver: state for state in client.ready.drivers}
    assert states["fake"].usable and not states["fake2"].usable
    assert "no reading came" in states["fake2"].reason
    steady, hanging = client.ready.streams
    assert setup.instants(hanging) == []
    eventually(lambda: len(setup.instants(steady)) > 200, "readings of the device that does not hang")
    release.touch()
    eventually(lambda: len(setup.instants(hanging)) > 10, "rows after the hanging")
    client.stop(10)
    reader = SpoolReader(setup.spool)
    counts = {count.stream: count for count in reader.ticks()}
    reader.close()
    for count in counts.values():
        assert count.due == count.taken + count.late + count.missed
    hung_ns = setup.rows(hanging)[0][1]
    assert hung_ns > 4 * S
    assert counts[hanging.id].missed >= hung_ns // 10_000_000 - 2
    assert counts[steady.id].missed < counts[hanging.id].missed
    assert setup.instants(steady) == setup.readings()


def test_a_device_that_updates_rarely_has_the_time_of_an_update(setup: Setup) -> None:
    slow = {"channel": '{"update_period_s": 4.8, "stamped": true}'}
    spec = setup.spec(["fake", "fake2"])
    spec.settings["fake2"] = {**slow, "hang_from": "0", "release_file": str(setup.directory / "never")}
    client = setup.start(spec)
    states = {state.driver: state for state in client.ready.drivers}
    assert states["fake"].usable and states["fake2"].reason == "no reading came within 6 s"
    client.stop(10)


def test_drivers_that_probe_for_their_ranges_are_waited_for(setup: Setup) -> None:
    spec = setup.spec(["fake"], probe_s="20", hang_from="0", release_file=str(setup.directory / "never"))
    told: list[str] = []
    client = SamplerClient.launch(spec, setup.directory, ready_timeout_s=4.0)  # it is ready after 5 s
    ready = client.wait_ready(told.append)
    assert [state.reason for state in ready.drivers] == ["no reading came within 5 s"]
    assert told == ["waiting for the first readings, up to 54 s: a device is slow, or looks for its ranges"]
    client.stop(10)


def test_a_device_that_hangs_does_not_hold_up_the_end(setup: Setup) -> None:
    client = setup.start(setup.spec(["fake"], hang_from="1", release_file=str(setup.directory / "never")))
    client.stop(10)
    reader = SpoolReader(setup.spool)
    assert "hangs" in " ".join(event.text for event in reader.events() if event.source == "fake")
    reader.close()
    assert setup.instants(client.ready.streams[0]) == setup.readings()


def test_what_the_devices_do_is_in_the_spool(setup: Setup) -> None:
    client = setup.start(setup.spec(["fake"], hz="100", fail_from="2", fail_until="4", raise_at="6", finish_at="8"))
    (stream,) = client.ready.streams

    def ended() -> bool:
        reader = SpoolReader(setup.spool)
        texts = [event.text for event in reader.events()]
        reader.close()
        return "the fake device is told to end" in texts

    eventually(ended, "the end of the device")
    client.stop(10)
    rows = setup.rows(stream)
    assert [row[3] for row in rows] == [0, 1, 0, 0, 4, 5, 0, 7]
    assert [row[4] for row in rows] == [b"\0\0"] * 2 + [b"\2\2"] * 2 + [b"\0\0"] * 2 + [b"\2\2", b"\0\0"]
    reader = SpoolReader(setup.spool)
    events = [(event.level, event.text) for event in reader.events()]
    (count,) = reader.ticks()
    reader.close()
    assert events[0] == ("warning", "a reading failed: the fake device is told to fail (2 times)")
    assert events[1][0] == "error" and "KeyError" in events[1][1]
    assert events[2] == ("info", "the fake device is told to end")
    assert count.taken + count.late == 9 and count.extra == 0


def test_a_full_disk_stops_recording_and_nothing_else(setup: Setup) -> None:
    """The disk is full at first by a limit on the size of files, which another process lifts."""
    client = setup.start(setup.spec(["fake"], hz="1000"))
    (stream,) = client.ready.streams
    pid = int(setup.meta()["pid"])
    eventually(lambda: bool(setup.instants(stream)), "the first rows in the spool")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    wal = setup.spool.with_name("spool.db-wal")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (wal.stat().st_size + 20_000, before[1]))
    sizes: list[int] = []

    def stuck() -> bool:
        sizes.append(len(setup.instants(stream)))
        return len(setup.readings()) > sizes[-1] + 1500

    eventually(stuck, "readings that find no place")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    known = len(setup.readings())
    eventually(lambda: len(setup.instants(stream)) > known, "the disk is used again")
    client.stop(10)
    assert setup.instants(stream) == setup.readings()
    reader = SpoolReader(setup.spool)
    (event,) = (event for event in reader.events() if event.level == "error")
    assert event.source == "spool" and "free some space" in event.text
    assert reader.ticks()[0].dropped_rows == 0
    reader.close()


def test_a_disk_that_stays_full_is_told_at_the_end(setup: Setup) -> None:
    client = setup.start(setup.spec(["fake"], hz="100"))
    eventually(lambda: bool(setup.instants(client.ready.streams[0])), "the first rows in the spool")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.prlimit(int(setup.meta()["pid"]), resource.RLIMIT_FSIZE, (1, hard))
    with pytest.raises(SamplerFailed, match="is the disk full"):
        client.stop(10)
    assert setup.instants(client.ready.streams[0])


def test_terminate_ends_it_like_stop_and_ctrl_c_does_not(setup: Setup) -> None:
    client = setup.start(setup.spec(["fake"], hz="100"))
    (stream,) = client.ready.streams
    pid = int(setup.meta()["pid"])
    os.kill(pid, signal.SIGINT)
    before = len(setup.readings())
    eventually(lambda: len(setup.readings()) > before + 10, "readings after Ctrl-C")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not client.alive(), "its end")
    assert setup.instants(stream) == setup.readings()
    assert "finished_ns" in setup.meta()


def test_a_replayed_session_runs_on_the_traces_clock(setup: Setup) -> None:
    origin_ns = time.monotonic_ns()
    spec = SamplerSpec(
        spool=str(setup.spool),
        host="n",
        drivers=["fake"],
        rates_hz={"fake": 10.0},
        replay_clock=ReplayClockSpec(monotonic_origin_ns=origin_ns, wall_origin_ns=1_600_000_000 * S, speed=10.0),
    )
    client = setup.start(spec)
    (stream,) = client.ready.streams
    eventually(lambda: len(setup.instants(stream)) > 50, "50 rows")
    elapsed_ns = 10 * (time.monotonic_ns() - origin_ns)
    client.stop(10)
    instants = setup.instants(stream)
    assert all(origin_ns <= instant_ns for instant_ns in instants)
    assert instants[50] - instants[0] <= elapsed_ns
    assert instants[50] - instants[0] >= 4.7 * S  # 50 ticks of the session's time, but for three out of turn
    reader = SpoolReader(setup.spool)
    for pair in reader.clock():
        assert abs((pair.wall_ns - 1_600_000_000 * S) - (pair.monotonic_ns - origin_ns)) <= pair.bracket_ns
    assert reader.events() == []
    reader.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates_hz": {"fake": -1.0}}, "rate of 'fake' is -1.0 Hz"),
        ({"spool": "/nonexistent/spool.db"}, "cannot create /nonexistent/spool.db"),
        (
            {"replay_clock": ReplayClockSpec(monotonic_origin_ns=0, wall_origin_ns=0, speed=0.0)},
            "speed of a replay must be",
        ),
    ],
)
def test_a_specification_that_cannot_work_is_told(setup: Setup, change: dict[str, object], message: str) -> None:
    spec = msgspec.structs.replace(setup.spec(["fake"]), **change)
    with pytest.raises(SamplerFailed, match="ended at once, status 2") as failure:
        setup.start(spec)
    assert message in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_a_python_that_is_not_there_is_told(setup: Setup) -> None:
    with pytest.raises(SamplerFailed, match="cannot be started"):
        SamplerClient.start(setup.spec(["fake"]), setup.directory, python="/nonexistent/python")


def test_a_sampler_that_never_gets_ready_is_ended(setup: Setup) -> None:
    spec = setup.spec(["fake"], hang_from="0", release_file=str(setup.directory / "never"))
    with pytest.raises(SamplerFailed, match="was not ready within"):
        SamplerClient.start(spec, setup.directory, ready_timeout_s=0.5)
    assert setup.readings() == []


def test_the_users_own_folders_are_not_taken_for_the_projects(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    monkeypatch.chdir(tmp_path)
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 always looks into the current folder first")
    setup.start(setup.spec(["fake"])).stop(10)


def test_what_is_not_understood_is_noted(setup: Setup) -> None:
    client = setup.start(setup.spec(["fake"]))
    client._orders.write(b"work now\n\xff\xfe\n" + b"x" * 10_000 + b"\n\n")
    client.stop(10)
    reader = SpoolReader(setup.spool)
    assert {event.source for event in reader.events()} == {"sampler"}
    reader.close()


def test_starting_a_sampler_loads_nothing_heavy() -> None:
    heavy = ("numpy", "pyarrow", "pandas")
    program = f"import sys, power_agent.sampler_client; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
