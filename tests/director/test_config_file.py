"""Options from TOML: the same as on the command line, and every mistake told with file and key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from director.running.config_file import ConfigError, Shape, read_config

SHAPES: dict[str, Shape] = {
    "idle": "value",
    "label": "value",
    "quiet": "flag",
    "live": "switch",
    "mllog": "optional",
    "drivers": "comma list",
    "phase-pattern": "list",
    "rate": "table",
}


def arguments_of(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [word for _, words in read_config(path, SHAPES) for word in words]


def director(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "director.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_a_switch_can_be_set_either_way(tmp_path: Path) -> None:
    assert arguments_of(tmp_path / "c.toml", "live = true") == ["--live"]
    assert arguments_of(tmp_path / "c.toml", "live = false") == ["--no-live"]
    with pytest.raises(ConfigError, match="live must be true or false, not 'title'"):
        arguments_of(tmp_path / "c.toml", 'live = "title"')


def test_every_kind_of_value_becomes_its_arguments(tmp_path: Path) -> None:
    text = """
        idle = 2.5
        label = "a b"
        quiet = true
        mllog = true
        drivers = ["nvml", "rapl"]
        phase-pattern = ["a=x", "b=y"]
        [rate]
        nvml = 20
        rapl.package = 100.0
        "hwmon.power" = 5
    """
    assert arguments_of(tmp_path / "c.toml", text) == [
        "--idle=2.5",
        "--label=a b",
        "--quiet",
        "--mllog",
        "--drivers=nvml,rapl",
        "--phase-pattern=a=x",
        "--phase-pattern=b=y",
        "--rate=nvml=20",
        "--rate=rapl.package=100.0",
        "--rate=hwmon.power=5",
    ]
    assert arguments_of(tmp_path / "c.toml", "quiet = false\nmllog = 'train.log'\ndrivers = 'nvml,rapl'") == [
        "--mllog=train.log",
        "--drivers=nvml,rapl",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("idel = 3", "unknown key 'idel': did you mean 'idle'?"),
        ("zzzzzz = 3", "known keys: drivers, idle"),
        ("idle = [1, 2]", "idle must be text or a number"),
        ("idle = true", "idle must be text or a number"),
        ("quiet = 1", "quiet must be true or false"),
        ("rate = 5", "rate must be a table"),
        ("drivers = [1, [2]]", "drivers must be text or a number"),
        ("idle = 2020-01-01", "idle must be text or a number"),
        ("idle = ", "is not valid TOML"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.toml"
    with pytest.raises(ConfigError, match=r"c\.toml: ") as caught:
        arguments_of(path, text)
    assert words in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_bytes_are_options_or_a_plain_refusal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    try:
        read_config(path, SHAPES)
    except ConfigError as error:
        assert "fuzz.toml" in str(error)


def test_a_wrong_value_is_told_by_the_command_before_anything_runs(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("idle = 'soon'")
    result = director("run", "--config", config, "--", "touch", "ran", cwd=tmp_path)
    assert result.returncode == 2
    assert "run.toml: idle: argument --idle: 'soon' is not a number of seconds" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "ran").exists()
    missing = director("run", "--config", "none.toml", "--", "true", cwd=tmp_path)
    assert missing.returncode == 2
    assert "none.toml: cannot be read" in missing.stderr


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        "label = 'from the file'\ndrivers = ['host']\noutput = 'other'\nquiet = true\ncost-per-kwh = 0.3\n"
        "[rate]\nhost = 5\n'host.cpu' = 10\n"
    )
    result = director(
        "run", "--config", config, "--label", "mine", "--rate=host.cpu=20", "--output=here", "--", "true", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "here/manifest.json").read_bytes())
    assert manifest["label"] == "mine"
    assert manifest["factors"]["cost_per_kwh"] == 0.3
    assert not (tmp_path / "other").exists()
    rates = {s["stream"]["group"]: s["stream"]["rate_hz"] for s in manifest["hosts"][0]["streams"]}
    assert rates["cpu"] == 20
    assert rates["system"] == 5
