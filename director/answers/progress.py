"""A progress bar for work that takes long: on a terminal only, and gone when the work is done."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Step = Callable[[str, int, int], None]  # what is done now, the number of steps done, and of all; 0: unknown

DELAY_S = 2.0  # what is done by then needs no bar


@contextmanager
def progress_bar(*, quiet: bool, delay_s: float = DELAY_S) -> Iterator[Step]:
    """Draw on standard error, where that is a terminal that can, how far the block has come."""
    if quiet or not sys.stderr.isatty():
        yield lambda _name, _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        yield lambda _name, _done, _of: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=None)
    lock = threading.Lock()
    over = False

    def show() -> None:
        with lock:
            if not over:
                console.print()  # the job may have left the cursor behind a line of its own
                bar.start()

    def step(name: str, done: int, of: int) -> None:
        text = f"{name} ({done + 1} of {of})" if of > 1 else name
        bar.update(task, description=text, completed=done, total=of or None)

    timer = threading.Timer(delay_s, show)
    timer.daemon = True
    timer.start()
    try:
        yield step
    finally:
        timer.cancel()
        with lock:
            over = True
            bar.stop()
