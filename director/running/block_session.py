"""The session of a measured block: begun and ended by the program that the block belongs to."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from director.running.block_results import Asked, Results, compute
from director.running.recording import Recording
from director.running.run_command import default_directory, make_directory
from director.running.run_options import RunOptions
from director.session.files import hold
from power_agent.recorder import Recorder


class BlockSession:
    """Measures this process from `begin` to `end`."""

    def __init__(self, options: RunOptions) -> None:
        """Begin the session and start its sampler; everything is read once before this returns.

        Raises:
            UsageError: `options.output` is not empty or cannot be written.
            SessionError, OSError: the session cannot be begun.
        """
        self._idle_s = options.idle_s
        self.directory = _new_directory(options).resolve()
        self._held = ExitStack()
        self._held.enter_context(hold(self.directory))
        self._recording = Recording(options, self.directory, name=self.directory.name)
        self._recorder: Recorder | None = None
        try:
            self._recorder = self._recording.begin(restarts=False)
            self._idle()
            self._recorder.work_started(os.getpid())
            self.begin()
            self._recording.store_if_possible()
        except BaseException as error:
            if self._recorder is not None:
                self._recorder.stop()
            self._held.close()
            if not isinstance(error, Exception):  # interrupted before there was anything to measure
                shutil.rmtree(self.directory, ignore_errors=True)
            raise

    @property
    def marks(self) -> str:
        """The directory for marks."""
        return str(self._recording.marks)

    def begin(self) -> None:
        """The block begins now."""
        self._recording.change_workload(started_ns=time.monotonic_ns())

    def end(self) -> None:
        """The block has ended: take the last readings. The spool is complete then."""
        self._recording.change_workload(ended_ns=time.monotonic_ns())
        recorder = self._recorder
        assert recorder is not None
        try:
            recorder.look()
            recorder.work_ended()
            self._recording.store_if_possible()
            self._idle()
            time.sleep(recorder.tail_s)
        finally:
            recorder.stop()
            self._recording.change(state="ingesting", missing=recorder.problems)
            self._recording.store_if_possible()
            self._held.close()

    def results(self, phases: list[tuple[str, int]], *, plot: bool) -> Results:
        """The results of a session that has ended.

        Raises:
            NoResults, OSError: they could not be computed; the readings are kept.
        """
        return compute(Asked(session=str(self.directory), phases=phases, plot=plot))

    def forget(self) -> None:
        """In a forked child: the session is its parent's."""
        if self._recorder is not None:
            self._recorder.forget()
        self._held.close()  # a lock that a child holds, too, would outlive its parent

    def _idle(self) -> None:
        if self._idle_s > 0:
            begin_ns = time.monotonic_ns()
            time.sleep(self._idle_s)
            idle_ns = [*self._recording.manifest.idle_ns, (begin_ns, time.monotonic_ns())]
            self._recording.change(idle_ns=idle_ns)


def _new_directory(options: RunOptions) -> Path:
    if options.output is not None:
        make_directory(options.output)
        return options.output
    while True:
        path = default_directory(options)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:  # another process, as of the same distributed job, took the name just now
            if not path.is_dir():
                raise
