"""`with measure() as m:` in real programs: the figures, what the program notices, and how it may end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from powercap_tree import PowercapTree, write_cpuinfo

from director import measure
from director.session.files import load_manifest
from power_agent import phase

DEADLINE_S = 60.0
# A model of constant power: 50 W whatever the machine does, so that energy is 50 W times the time.
PRELUDE = """
import os, signal, subprocess, sys, threading, time
from director import measure
from power_agent import mark, phase
MODEL = dict(drivers=["estimate"], settings={"estimate": {"idle_watts": 50, "peak_watts": 50}})
"""


def program(code: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]


def run(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "POWER_AGENT_MARKS"}
    return subprocess.run(
        program(code), cwd=cwd, env={**environment, **variables}, capture_output=True, text=True, timeout=DEADLINE_S
    )


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def phases(session: Path) -> list[str]:
    names: list[str] = pq.read_table(session / "phases.parquet")["name"].to_pylist()
    return names


@contextmanager
def package_of(root: Path, watts: float) -> Iterator[None]:
    """A CPU package whose counter advances by so many watts."""
    tree = PowercapTree(root)
    write_cpuinfo(root, "GenuineIntel", "Model")
    tree.add("intel-rapl:0", "package-0", energy_joules=lambda t_s: watts * t_s)
    start_s, over = time.monotonic(), threading.Event()

    def advance() -> None:
        while not over.wait(0.002):
            tree.advance_to(time.monotonic() - start_s)

    thread = threading.Thread(target=advance)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_known_power_gives_the_energy_of_the_block_and_of_its_phases(tmp_path: Path) -> None:
    before = os.environ.get("POWER_AGENT_MARKS")
    with phase("nobody listens"):  # marks have looked for a session, and found none
        pass
    root = tmp_path / "root"
    block = measure("work", output=tmp_path / "s", drivers=["rapl"], root=root, rates_hz={"rapl": 50})
    with package_of(root, 100.0), block as m:
        with phase("main"):
            time.sleep(0.4)
        with phase("child"):
            child = "from power_agent import phase\nwith phase('spawned'): pass"
            subprocess.run([sys.executable, "-c", child], check=True)
        thread = threading.Thread(target=lambda: phase("thread").__enter__().__exit__(None, None, None))
        thread.start()
        thread.join()
        assert m.joules is None and m.reason == "the block has not ended"
    assert os.environ.get("POWER_AGENT_MARKS") == before
    assert m.reason == "" and m.session == tmp_path / "s"
    assert m.joules is not None and m.expanded_joules is not None and m.duration_s is not None
    assert m.duration_s >= 0.4
    assert abs(m.joules - 100.0 * m.duration_s) <= m.expanded_joules
    assert m.expanded_joules < 0.1 * m.joules
    assert m.mean_watts == pytest.approx(m.joules / m.duration_s, rel=1e-3)
    assert m.coverage == pytest.approx(1.0)
    assert not m.estimate
    assert str(m).startswith("work: ") and "ESTIMATE" not in str(m)
    assert m.summary is not None and m.summary.label == "work"
    assert sorted(phases(m.session)) == ["child", "command", "main", "spawned", "thread"]
    manifest = load_manifest(m.session)
    assert manifest.state == "complete" and manifest.missing == []
    assert not (m.session / "spool").exists()
    energies = {group.name: group.total for group in m.summary.phases}
    main = energies["main"]
    assert main is not None and main.joules is not None and main.expanded_joules is not None
    assert 40.0 - main.expanded_joules <= main.joules <= m.joules
    # The report command computes the same from the raw files.
    summary = (m.session / "summary.json").read_bytes()
    again = subprocess.run([sys.executable, "-m", "director.cli", "report", "--quiet", m.session], timeout=DEADLINE_S)
    assert again.returncode == 0 and (m.session / "summary.json").read_bytes() == summary


@pytest.mark.long
def test_blocks_within_a_block_are_phases_and_get_figures_when_it_ends(tmp_path: Path) -> None:
    done = run(
        """
        def straggle():
            with straggler:
                while outer.duration_s is None:
                    time.sleep(0.001)

        with measure("outer", output="outer", **MODEL) as outer:
            straggler = measure("straggler")
            thread = threading.Thread(target=straggle)
            thread.start()
            with measure("inner") as first:
                time.sleep(0.2)
            with measure("inner") as second:
                time.sleep(0.4)
            assert first.joules is None and "when the measurement around it ends" in first.reason, first.reason
            with measure("own", output="own", separate=True, **MODEL) as own:
                mark("in own")
                time.sleep(0.2)
            mark("in outer")
            left = measure("left open").__enter__()
        for m in (outer, first, second, own):
            assert abs(m.joules - 50 * m.duration_s) < 0.05 * m.joules + 0.5, m
            assert m.estimate and "ESTIMATE" in str(m) and m.reason == ""
        assert (first.session, own.session.name) == (outer.session, "own")
        assert second.joules > 1.5 * first.joules
        left.__exit__(None, None, None)
        thread.join()
        for m in (left, straggler):
            assert m.joules is None and "ended first" in m.reason, m
        print(outer)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ESTIMATE" in done.stdout and done.stdout.count("\n") == 1
    outer, own = (json.loads((tmp_path / name / "summary.json").read_bytes()) for name in ("outer", "own"))
    assert {group["name"]: group["count"] for group in outer["phases"]} == {
        "command": 1,
        "inner": 2,
        "own": 1,
        "left open": 1,
        "straggler": 1,
    }
    assert [point.partition(" s ")[2] for point in outer["points"]] == ["in outer"]
    assert [point.partition(" s ")[2] for point in own["points"]] == ["in own"]


def test_exceptions_and_exits_pass_and_the_session_is_finished(tmp_path: Path) -> None:
    done = run(
        """
        forgotten = measure(output="forgotten", **MODEL)
        forgotten.__enter__()
        with measure(output="left", separate=True, **MODEL):
            if (child := os.fork()) == 0:
                with phase("of a child"):
                    with measure("inner") as inner:
                        pass
                assert "phase 'inner' of the measurement that this process runs in" in inner.reason
                assert inner.joules is None
                sys.exit(0)  # leaves the block of its parent
            assert os.waitpid(child, 0)[1] == 0
            try:
                with measure("goes on"):
                    raise KeyError("of the block")
            except KeyError as error:
                assert error.args == ("of the block",) and error.__context__ is None
            sys.exit(7)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (7, "")
    for name in ("left", "forgotten"):
        manifest = load_manifest(tmp_path / name)
        assert manifest.state == "complete" and manifest.missing == [], name
        assert (tmp_path / name / "summary.json").exists()
    assert sorted(phases(tmp_path / "left")) == ["command", "goes on", "inner", "of a child"]


def test_a_block_that_is_killed_can_be_recovered_while_its_children_live_on(tmp_path: Path) -> None:
    code = """
    with measure("killed", output="s", **MODEL):
        if os.fork() == 0:
            open("child", "w").write(str(os.getpid()))
            time.sleep(60)
            os._exit(0)
        with phase("work"):
            time.sleep(60)
    """
    process = subprocess.Popen(program(code), cwd=tmp_path)
    until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "", "the child")
    until(lambda: len(list((tmp_path / "s/marks").glob("*.marks"))) > 0, "the phase")
    process.kill()
    process.wait()
    recover = [sys.executable, "-m", "director.cli", "recover", "--quiet", "s"]

    def recovered() -> bool:
        done = subprocess.run(recover, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 0 or "the sampler" in done.stderr, done.stderr
        return done.returncode == 0

    until(recovered, "the sampler to end by itself")
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    summary = json.loads((tmp_path / "s/summary.json").read_bytes())
    whole = summary["phases"][0]
    assert whole["name"] == "command"
    assert whole["total"]["joules"] == pytest.approx(50 * whole["duration_s"], rel=0.05)


@pytest.mark.long
def test_ctrl_c_while_results_are_computed_loses_nothing(tmp_path: Path) -> None:
    code = """
    with measure(output="s", **MODEL) as m:
        pass
    """
    process = subprocess.Popen(program(code), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until(lambda: (tmp_path / "s/manifest.json").exists(), "the session")
    until(lambda: load_manifest(tmp_path / "s").state == "ingesting", "the end of the block")
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=DEADLINE_S)
    assert process.returncode != 0 and "KeyboardInterrupt" in messages
    if "power-director recover" in messages:
        recover = [sys.executable, "-m", "director.cli", "recover", "--quiet", "s"]
        subprocess.run(recover, cwd=tmp_path, check=True, timeout=DEADLINE_S)
    assert load_manifest(tmp_path / "s").missing == []
    assert (tmp_path / "s/summary.json").exists()


def test_what_cannot_be_measured_does_not_disturb_the_block(tmp_path: Path) -> None:
    done = run(
        """
        with measure(output="nothing", root="empty", drivers=["rapl"]) as m:
            print("first ran")
        assert (m.joules, m.expanded_joules, m.mean_watts, m.coverage, m.estimate) == (None, None, None, None, False)
        assert "rapl" in m.reason and m.duration_s >= 0, m.reason
        assert str(m) == f"not measured: {m.reason}"
        os.chdir("/proc")
        with measure("label") as m:
            print("second ran")
        assert m.joules is None and "measuring could not begin" in m.reason, m.reason
        assert "POWER_AGENT_MARKS" not in os.environ
        with measure(output="/dev/shm/no/../../..", drivers=["host"]):
            print("never run")
        """,
        tmp_path,
    )
    assert done.stdout == "first ran\nsecond ran\n"
    assert "ValueError: the output directory /dev/shm/no/../../.. " in done.stderr
    assert "power-director: warning: measuring could not begin" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"drivers": ["nvlm"]}, "there is no driver 'nvlm'. did you mean 'nvml'?"),
        ({"drivers": "nvml"}, "give a list, ['nvml']"),
        ({"rates_hz": {"nvlm.power": 5}}, "there is no driver 'nvlm'"),
        ({"rates_hz": {"host": 0}}, "the rate of 'host' is 0 Hz"),
        ({"settings": {"nvlm": {}}}, "there is no driver 'nvlm'"),
        ({"idle_s": -1}, "idle_s is -1"),
        ({"idle_s": float("nan")}, "idle_s is nan"),
    ],
)
def test_a_mistake_in_the_arguments_is_told_at_once(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as raised:
        measure(**arguments)  # type: ignore[arg-type]
    assert words in str(raised.value)


@pytest.mark.long
def test_within_a_measured_command_a_block_is_its_phase_and_a_separate_one_has_figures(tmp_path: Path) -> None:
    job = """
    with measure("block") as m:
        pass
    assert m.joules is None and "its figures are in the report of" in m.reason, m.reason
    with measure("own", output="own", separate=True, **MODEL) as m:
        mark("in own")
    assert m.joules > 0
    mark("after")
    """
    line = [sys.executable, "-m", "director.cli", "run", "--drivers=host", "--quiet", "--output=s", "--", *program(job)]
    done = subprocess.run(line, cwd=tmp_path, timeout=DEADLINE_S, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert phases(tmp_path / "s") == ["command", "block", "own"]
    points = {name: json.loads((tmp_path / name / "summary.json").read_bytes())["points"] for name in ("s", "own")}
    assert [text.split()[-1] for text in points["s"]] == ["after"]
    assert [text.split()[-1] for text in points["own"]] == ["own"]


@pytest.mark.long
def test_the_example_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/measure_block.py"
    done = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("example: ") and "\nevaluation: " in done.stdout
    (session,) = (tmp_path / "power-sessions").iterdir()
    assert phases(session) == ["command", "epoch", "epoch", "epoch", "evaluation"]


def test_the_package_is_imported_lightly() -> None:
    code = (
        "import sys; import director; assert len([m for m in sys.modules if m.startswith('director')]) == 1\n"
        "from director import measure\n"
        "print(sorted({'numpy', 'pyarrow', 'pandas', 'rich', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.stdout, done.stderr) == ("[]\n", "")
