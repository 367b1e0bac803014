"""The director: runs measurements, and turns readings into energies, metrics and reports.

`measure` measures a block of a program; it is imported when it is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import the commands' start is spared
if TYPE_CHECKING:
    from director.running.measured_block import MeasuredBlock, measure

__all__ = ["MeasuredBlock", "measure"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from director.running import measured_block

        return getattr(measured_block, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
