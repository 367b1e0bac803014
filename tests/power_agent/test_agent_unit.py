"""The unit for systemd that the page of the agent shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from power_agent.cli import _parser

PAGE = Path(__file__).parents[2] / "docs" / "agent.md"


def unit() -> str:
    found = re.search(r"```ini\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_its_command_is_one_of_ours() -> None:
    (command,) = re.findall(r"^ExecStart=(.*)$", unit(), re.MULTILINE)
    program, *words = command.split()
    assert program.endswith("/power-agent")
    assert _parser().parse_args(words).command == "serve"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_has_nothing_to_say_against_it(tmp_path: Path) -> None:
    program = tmp_path / "power-agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "power-agent.service"
    path.write_text(re.sub(r"(?<=ExecStart=)\S+", str(program), unit()))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
