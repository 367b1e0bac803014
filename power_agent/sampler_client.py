"""Starts a sampling process and speaks with it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from power_agent.messages import Ready, SamplerSpec

SPEC_FILE = "sampler.json"
LOG_FILE = "sampler.log"
MAX_READY_BYTES = 16 << 20
LOG_LINES = 5  # of its log in an error message
LAST_READINGS_LOST = 1  # exit status of a sampler that could not write everything


class SamplerFailed(Exception):
    """The sampling process did not start, or is gone: what, the last lines of its log, and what to do."""


class SamplerClient:
    """A running sampling process. It outlives its client: left alone, it samples until the work has ended."""

    def __init__(self, process: subprocess.Popen[bytes], ready: Ready, log: Path) -> None:
        self.ready = ready
        self._process = process
        self._log = log

    @classmethod
    def start(
        cls, spec: SamplerSpec, directory: Path, *, python: str = sys.executable, ready_timeout_s: float = 15.0
    ) -> SamplerClient:
        """Start a sampling process and wait for its first readings.

        Its specification and its log, `sampler.json` and `sampler.log`, come into `directory`.

        Raises:
            SamplerFailed: it could not be started, or is not ready in time; then it has been ended.
        """
        spec_file, log = directory / SPEC_FILE, directory / LOG_FILE
        try:
            spec_file.write_bytes(msgspec.json.encode(spec))
            with log.open("ab") as stderr:
                process = subprocess.Popen(
                    [python, "-m", "power_agent.sampler", str(spec_file)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    start_new_session=True,  # so that no Ctrl-C and no hang-up of the terminal ends it
                    env={**os.environ, "PYTHONSAFEPATH": "1"},  # a folder `drivers` where the user stands is not ours
                )
        except OSError as error:
            raise SamplerFailed(f"the sampling process cannot be started in {directory}: {error}") from error
        try:
            ready = _read_ready(process, log, ready_timeout_s)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return cls(process, ready, log)

    def work_started(self, pid: int) -> None:
        """Tell that the workload runs as process `pid`: everything is read once more at once.

        Raises:
            SamplerFailed: the sampling process is gone.
        """
        self._send(f"work {pid}")

    def edge(self) -> None:
        """Have everything read once more at once: the workload has ended.

        Raises:
            SamplerFailed: the sampling process is gone.
        """
        self._send("edge")

    def alive(self) -> bool:
        """Whether the sampling process still runs."""
        return self._process.poll() is None

    def stop(self, timeout_s: float) -> None:
        """Have everything read a last time and written, and wait for the end of the process.

        Raises:
            SamplerFailed: it had gone before, did not end in time and was killed, or could not write everything.
        """
        try:
            self._send("stop")
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            text = f"the sampling process did not end within {timeout_s:g} s and was killed; see what its disk is doing"
            raise SamplerFailed(_with_log(f"{text}. What it wrote before is in the spool", self._log)) from None
        finally:
            self._process.kill()  # does nothing to a process that has ended
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.close()
            self._process.wait()
        if self._process.returncode != 0:
            text = f"the sampling process ended with status {self._process.returncode}"
            if self._process.returncode == LAST_READINGS_LOST:  # on a full disk its log is empty too
                text = "the last readings could not be written; is the disk full?"
            raise SamplerFailed(_with_log(text, self._log))

    def _send(self, command: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command}\n".encode())
        except OSError as error:
            status = self._process.poll()
            ended = "" if status is None else f" (status {status})"
            text = f"the sampling process is gone{ended}; what it wrote before is in the spool"
            raise SamplerFailed(_with_log(text, self._log)) from error


def _read_ready(process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> Ready:
    assert process.stdout is not None
    deadline_s = time.monotonic() + timeout_s
    received = b""
    with process.stdout as pipe:
        while not received.endswith(b"\n") and len(received) < MAX_READY_BYTES:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
                text = (
                    f"the sampling process was not ready within {timeout_s:g} s; a device may hang while it is opened"
                )
                raise SamplerFailed(_with_log(f"{text}: leave out drivers one by one to find it", log))
            chunk = os.read(pipe.fileno(), 1 << 16)
            if not chunk:
                raise SamplerFailed(_with_log(f"the sampling process ended at once, status {process.wait()}", log))
            received += chunk
    try:
        return msgspec.json.decode(received, type=Ready)
    except msgspec.DecodeError as error:
        text = f"the sampling process speaks another language ({error}); is it of the same version?"
        raise SamplerFailed(_with_log(text, log)) from error


def _with_log(text: str, log: Path) -> str:
    lines: list[str] = []
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join([f"{text}. Its log, {log}:" if lines else f"{text}. Its log, {log}, is empty.", *lines])
