"""The command `power-agent`, as a user starts it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nvml_stub
import pytest
from nvml_stub import StubConfig, StubGpu
from powercap_tree import PowercapTree, write_cpuinfo
from rich.cells import cell_len

from power_agent.cli import main

MODULE = [sys.executable, "-m", "power_agent.cli"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of two packages with one CPU each and nothing else."""
    folder = tmp_path / "root"
    (folder / "proc").mkdir(parents=True)
    nothing = " 0 0 0 0 0 0 0 0 0 0"
    (folder / "proc/stat").write_text(f"cpu {nothing}\ncpu0{nothing}\ncpu1{nothing}\n")
    for cpu in range(2):
        topology = folder / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{cpu}\n")
    return folder


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MODULE, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def devices(root: Path, columns: int, *drivers: str, **environment: str) -> list[str]:
    words = [word for driver in drivers for word in ("--driver", driver)]
    done = run("devices", "--root", str(root), *words, COLUMNS=str(columns), **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_table_tells_channels_alike_of_devices_alike_in_one_line(root: Path) -> None:
    lines = devices(root, 100, "host", "estimate")
    assert lines[0] == "host  2 channels"
    assert re.fullmatch(r"  package-0…1  +\d+ Hz  utilization \(%\)", lines[1])
    assert lines[2:8] == [
        "",
        "estimate  4 channels · 2 × linear CPU model",
        "  device       channel          unit  kind     scope     rate  update   window  accuracy",
        "  package-0…1  power ESTIMATE   W     gauge    package  10 Hz       –   100 ms  ±50 %",
        "               energy ESTIMATE  J     counter  package  10 Hz       –        –  ±50 %",
        "  ±50 %: assumed limits: power per thread of server parts lies within ±50 % of the default",
    ]


@pytest.mark.parametrize("columns", [50, 80, 120, 200])
def test_every_width_holds_every_line_and_every_word(root: Path, columns: int) -> None:
    lines = devices(root, columns, "host", "estimate", "replay", "nvmll")
    assert max(cell_len(line) for line in lines) <= columns
    text = " ".join(" ".join(lines).split())
    for word in ("channel", "unit", "rate", "accuracy", "ESTIMATE", "±50 %"):
        assert word in text  # nothing was cut off
    assert ("update" in lines[4]) == (columns >= 80)
    assert "✗ no trace is named" in text
    assert "→ set replay.path=FILE (spl.txt, CSV) or replay.path=SESSION_DIRECTORY" in text
    assert "✗ there is no driver 'nvmll'" in text
    assert "did you mean 'nvml'?" in text


def test_a_server_fits_a_screen(root: Path, tmp_path: Path) -> None:
    if nvml_stub.compiler() is None:
        pytest.skip("gcc is needed to build the NVML stub")
    library, config = nvml_stub.build(tmp_path), tmp_path / "nvml.conf"
    gpus = [StubGpu() for _ in range(8)]
    gpus[3] = StubGpu(name="NVIDIA A100-SXM4-80GB", architecture=7, compute_capability=(8, 0))
    StubConfig(gpus=gpus).write(config)
    powercap = PowercapTree(root)
    for socket in (0, 1):
        powercap.add(f"intel-rapl:{socket}", f"package-{socket}")
        powercap.add(f"intel-rapl:{socket}:0", "dram")
    write_cpuinfo(root, "GenuineIntel", "Xeon")
    lines = devices(root, 120, "nvml", "rapl", "estimate", **nvml_stub.environment(library, config))
    assert len(lines) < 50
    assert lines[0] == "nvml  192 channels · 7 × NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-80GB"
    first_words = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    # The GPU that differs parts the others; what is alike in all of them is told once.
    assert [word for word in first_words if word.startswith("gpu")] == ["gpu0…2", "gpu3", "gpu4…7", "gpu0…7"]
    assert [word for word in first_words if word.startswith(("package", "dram"))] == ["package-0…1", "dram-0…1"]
    assert sum("power_instant" in line for line in lines) == 3


def test_json_holds_all_that_is_known(root: Path) -> None:
    done = run(
        "devices",
        "--json",
        "--root",
        str(root),
        "--driver",
        "replay",
        "--driver",
        "estimate",
        "--set",
        "estimate.peak_watts=80",
    )
    refused, opened = json.loads(done.stdout)["drivers"]
    assert refused == {
        "name": "replay",
        "usable": False,
        "reason": "no trace is named",
        "fix": "set replay.path=FILE (spl.txt, CSV) or replay.path=SESSION_DIRECTORY",
    }
    assert (opened["name"], opened["usable"], opened["notes"]) == ("estimate", True, [])
    (group,) = opened["groups"]
    assert (group["name"], group["default_hz"], group["max_hz"]) == ("power", 10.0, 100.0)
    assert [channel["name"] for channel in group["channels"]] == [
        f"estimate/package-{package}/{quantity}" for package in (0, 1) for quantity in ("power", "energy")
    ]
    assert group["channels"][0]["estimate"] is True
    assert "idle 16 W, peak 80 W" in group["channels"][0]["description"]


def on_terminal(*arguments: str, **environment: str) -> str:
    """What the command writes to a real terminal."""
    controller, terminal = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        [*MODULE, *arguments], stdout=terminal, stdin=terminal, env={**plain, "TERM": "xterm-256color", **environment}
    ) as process:
        os.close(terminal)
        output = b""
        while True:
            try:
                piece = os.read(controller, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not piece:
                break
            output += piece
        assert process.wait(timeout=30) == 0
    os.close(controller)
    return output.decode()


def test_colour_only_on_a_terminal_that_wants_it(root: Path) -> None:
    words = ("devices", "--root", str(root), "--driver", "host", "--driver", "replay")
    cyan, yellow = "\x1b[36m", "\x1b[33m"
    in_colour = on_terminal(*words)
    assert cyan in in_colour and yellow in in_colour
    without = on_terminal(*words, NO_COLOR="1")
    assert cyan not in without and yellow not in without
    assert "\x1b" not in run(*words).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["device"], "invalid choice: 'device'"),
        (["devices", "--set", "path=x"], "'path=x' is not DRIVER.KEY=VALUE, such as estimate.idle_watts=40"),
        (["mark", "begin"], "the following arguments are required: NAME"),
        (["mark", "start", "epoch"], "invalid choice: 'start'"),
        (["mark", "begin", "epoch", "--samples", "many"], "invalid float value: 'many'"),
        (["mark", "begin", "epoch", "--attribute", "lr"], "'lr' is not KEY=VALUE"),
    ],
)
def test_wrong_usage_exits_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(root: Path) -> None:
    """As in `power-agent devices | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*MODULE, "devices", "--root", str(root), "--driver", "host"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; from power_agent.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'rich', 'drivers', 'msgspec', 'numpy', 'psutil', 'pyarrow', 'pynvml', 'importlib.metadata'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    clean = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert clean.stdout.splitlines()[-1] == "LOADED []"


def test_the_version_is_told() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("power-agent 0.")


def marks_in(folder: Path) -> list[dict[str, object]]:
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    return sorted((record for record in records if record["op"] != "header"), key=lambda record: record["t_ns"])


def test_marks_of_a_shell_script_are_written(tmp_path: Path) -> None:
    where = {"POWER_AGENT_MARKS": str(tmp_path)}
    begin = run("mark", "begin", "epoch", "--index", "3", "--samples", "600", "--attribute", "lr=0.1", **where)
    end = run("mark", "end", "epoch", "--tokens", "1e6", "--queries", "5", "--streams", "8", **where)
    point = run("mark", "point", "lr_drop", **where)
    assert [(done.returncode, done.stdout, done.stderr) for done in (begin, end, point)] == [(0, "", "")] * 3
    first, second, third = marks_in(tmp_path)
    assert (first["op"], first["name"], first["index"], first["work"], first["attributes"]) == (
        "begin",
        "epoch",
        3,
        {"samples": 600.0},
        {"lr": "0.1"},
    )
    assert (second["op"], second["name"], second["work"]) == (
        "end",
        "epoch",
        {"tokens": 1e6, "queries": 5.0, "streams": 8.0},
    )
    assert (third["op"], third["name"]) == ("point", "lr_drop")


def test_without_a_measurement_a_mark_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POWER_AGENT_MARKS", raising=False)
    assert main(["mark", "begin", "epoch"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["mark", "begin", "epoch", "--verbose"]) == 0
    assert capsys.readouterr().err == (
        "power-agent: no measurement runs (POWER_AGENT_MARKS is not set); nothing was marked\n"
    )


def test_a_mark_that_is_lost_is_told_but_does_not_stop_the_script(tmp_path: Path) -> None:
    done = run("mark", "begin", "epoch", POWER_AGENT_MARKS=str(tmp_path / "gone"))
    assert done.returncode == 0
    assert done.stderr.startswith("power-agent: mark 'epoch' was lost: ")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("director keys init", 1, "name a folder with --keys"),
        ("director serve", 1, "name a folder with --keys"),
        ("mark begin epoch", 0, ""),
        ("serve --help", 0, ""),
        ("serve --director 127.0.0.1:9", 2, "name folders with --state and --keys"),
        ("serve --director 10.0.0.5 --state /tmp/x", 2, "no home directory"),
        ("enroll --director 10.0.0.5 --key 00", 1, "name a folder with --keys"),
        ("run --director 127.0.0.1:9 --run-dir /tmp/no/such/folder -- sh -c 'exit 7'", 7, "name a folder with --state"),
    ],
)
def test_a_user_without_a_home_is_told_what_to_name(words: str, code: int, text: str) -> None:
    """As in a container that is run under a number alone."""
    as_unknown = ["unshare", "--user", "--map-user=4242", "--map-group=4242"]
    if shutil.which("unshare") is None or subprocess.run([*as_unknown, "true"], check=False).returncode:
        pytest.skip("needs user namespaces, to be a user that nobody knows")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG_"))}
    module = [sys.executable, "-m", "director.cli"] if words.startswith("director ") else MODULE
    done = subprocess.run(
        [*as_unknown, *module, *shlex.split(words.removeprefix("director "))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert text in done.stderr
