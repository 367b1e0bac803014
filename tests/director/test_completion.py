"""Shell completion as the user has it: the Tab key in a real bash and zsh, and what fish offers."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("shtab")

DEADLINE_S = 30.0
MODULES = {"power-director": "director.cli", "power-agent": "power_agent.cli"}


def script(program: str, shell: str) -> str:
    line = [sys.executable, "-m", MODULES[program], "completion", shell]
    return subprocess.run(line, check=True, capture_output=True, text=True, timeout=DEADLINE_S).stdout


class Shell:
    """An interactive shell at a terminal that has read our scripts, in a folder with one file and one folder."""

    def __init__(self, argv: list[str], folder: Path, setting_up: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(argv[0], argv, {**os.environ, "TERM": "dumb", "HOME": str(folder)})
        self._seen = b""
        self.type(f"PS1=; {setting_up}; echo read''y\n")
        self.read_until(rb"ready\r*\n")

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def read_until(self, pattern: bytes) -> bytes:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self._seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self._seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self._seen += os.read(self.master, 65536)
        self._seen = self._seen[found.end() :]
        return found.group()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "settings.toml").write_text("")
    (tmp_path / "session-1").mkdir()
    for program in MODULES:
        for shell in ("bash", "zsh"):
            (tmp_path / f"{program}.{shell}").write_text(script(program, shell))
    return tmp_path


@pytest.fixture
def interactive(folder: Path) -> Iterator[Callable[[str], Shell]]:
    opened: list[Shell] = []

    def open_shell(name: str) -> Shell:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        argv = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[name]
        read = "; ".join(f'eval "$(cat {program}.{name})"' for program in MODULES)
        opened.append(Shell(argv, folder, read if name == "bash" else f"autoload -Uz compinit; compinit -u -D; {read}"))
        return opened[-1]

    yield open_shell
    for shell in opened:
        os.close(shell.master)
        os.waitpid(shell.pid, 0)


CASES = [
    ("power-director comp", "power-director completion "),
    ("power-director run --expl", "power-director run --explain "),
    ("power-director run --drivers nv", "power-director run --drivers nvml "),
    ("power-director run --config sett", "power-director run --config settings.toml "),
    ("power-director charac", "power-director characterize "),
    ("power-director characterize --no-", "power-director characterize --no-store "),
    ("power-director report sess", "power-director report session-1/"),
    ("power-director run --idle 5 -- gunzi", "power-director run --idle 5 -- gunzip "),
    ("power-director run -- cat sett", "power-director run -- cat settings.toml "),
    ("power-agent dev", "power-agent devices "),
    ("power-agent devices --driver hw", "power-agent devices --driver hwmon "),
]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_the_tab_key_completes_commands_options_drivers_and_files(
    name: str, interactive: Callable[[str], Shell]
) -> None:
    shell = interactive(name)
    for words, completed in CASES:
        shell.type(f"{words}\t")
        shell.read_until(re.escape(completed.encode()))
        shell.type("\x15")  # Ctrl-U: the line is given up


def test_fish_offers_the_same(folder: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    for program in MODULES:
        (folder / f"{program}.fish").write_text(script(program, "fish"))
    for words, completed in CASES:
        ask = f"source power-director.fish; source power-agent.fish; complete -C '{words}'"
        told = subprocess.run(
            ["fish", "--no-config", "-c", ask], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S
        )
        offered = [line.split("\t")[0] for line in told.stdout.splitlines()]
        assert completed.split()[-1] in offered, (words, told)


def test_without_a_library_the_fix_is_named(tmp_path: Path) -> None:
    (tmp_path / "shtab.py").write_text("raise ImportError\n")
    done = subprocess.run(
        [sys.executable, "-m", "director.cli", "completion", "bash"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install shtab" in done.stderr
