"""A thread that does one thing again and again until it is told to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

PAUSE_S: Final = 1.0  # after a mistake


class OwnThread:
    """Calls `turn` from `start` to `close`. No exception ends it: each is told, and after a pause it goes on."""

    def __init__(self, name: str, turn: Callable[[], None], tell: Callable[[str], None]) -> None:
        self._turn = turn
        self._tell = tell
        self._told = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_ending(self) -> bool:
        """Whether this turn is the last one."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def sleep(self, seconds: float) -> None:
        """Of a turn: sleep, or until the thread is to end."""
        self._stop.wait(seconds)

    def close(self) -> None:
        """Wait for the end of the turn that is under way; there is none after it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception as error:
                text = f"a mistake of this program ({self._thread.name}): {type(error).__name__}: {error}"
                if text != self._told:  # once, not each second for days
                    self._told = text
                    self._tell(text)
                self._stop.wait(PAUSE_S)
