"""Work on many results: on all cores, with a bounded number of jobs under way, and a bar on the terminal."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from director.mlperf.scoring import Job

_FEW = 4  # jobs done here before other processes are started
_AHEAD = 64  # jobs that wait for a process
_REDRAW_S = 0.1


class Workers:
    """Runs jobs: the first few here, further ones in as many processes as there are cores."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._running: deque[Future[Any]] = deque()
        self._count = 0
        self._cores = len(os.sched_getaffinity(0))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, job: Job) -> Future[Any]:
        """Start a job, and wait while too many are under way."""
        self._count += 1
        if self._count <= _FEW or self._cores < 2:
            future: Future[Any] = Future()
            future.set_result(job.function(*job.arguments))
            return future
        if self._pool is None:
            # Forks have all modules loaded. No thread of ours runs yet: the bar is drawn without one.
            self._pool = ProcessPoolExecutor(self._cores, mp_context=multiprocessing.get_context("fork"))
        future = self._pool.submit(job.function, *job.arguments)
        self._running.append(future)
        while len(self._running) > _AHEAD:
            self._running.popleft().exception()
        return future


class Bar:
    """A progress bar on the terminal, where standard error is one."""

    def __init__(self, doing: str, of: str) -> None:
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(of), TimeElapsedColumn())
        is_terminal = sys.stderr.isatty()
        console = Console(stderr=True)
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not is_terminal, auto_refresh=False
        )
        self._task = self._progress.add_task("", total=0)
        self._total = 0
        self._drawn_s = time.monotonic()

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def more(self, jobs: int) -> None:
        """So many more are to be done."""
        self._total += jobs
        self._progress.update(self._task, total=self._total)

    def watch(self, future: Future[Any]) -> Future[Any]:
        """Count a job when it is done."""
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object) -> None:
        self._progress.advance(self._task)
        if time.monotonic() - self._drawn_s > _REDRAW_S:
            self._drawn_s = time.monotonic()
            self._progress.refresh()
