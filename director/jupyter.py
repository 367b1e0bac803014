"""Jupyter and IPython: `%load_ext director.jupyter`, then `%%measure` above a cell. docs/measure-in-python.md

The cell runs as any other: `%%measure` becomes a call in the same line, before the cell's own, and the end of the cell
ends the measurement. So tracebacks, `await`, the last value and the output are what they are without it.
"""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError

from director.commands.device_options import add_device_options
from director.commands.parser import Parser, WrongUsage
from director.commands.values import seconds
from director.running.measured_block import MeasuredBlock, measure
from power_agent.option_values import merged

_FIRST_LINE = re.compile(r"%%measure(?P<options>[ \t].*|)\n?")
NAME = "measure"


def load_ipython_extension(shell: Any) -> None:
    """Called by `%load_ext director.jupyter`."""
    magic = _Magic(shell)
    shell.register_magic_function(magic.line, "line", NAME)
    if as_line_magic not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(as_line_magic)


def unload_ipython_extension(shell: Any) -> None:
    """Called by `%unload_ext director.jupyter`."""
    shell.input_transformers_cleanup.remove(as_line_magic)
    shell.magics_manager.magics["line"].pop(NAME, None)


def as_line_magic(lines: list[str]) -> list[str]:
    """`%%measure` in the first line as `%measure`, which IPython turns into a call; other cells as they are."""
    found = _FIRST_LINE.fullmatch(lines[0]) if lines else None
    if found is None:
        return lines
    return [f"%measure{found['options']}\n", *lines[1:]]


class _Magic:
    """`%measure`: from this line to the end of the cell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._block: MeasuredBlock | None = None
        self._into: str | None = None
        self._plot = True
        self._deeper = 0  # cells that run within ours

    def line(self, line: str) -> None:
        """Measure the rest of the cell.

        %measure [--label TEXT] [--drivers A,B] [--rate DRIVER[.GROUP]=HZ] [--set DRIVER.KEY=VALUE]
                 [--idle SECONDS] [--output DIR] [--into NAME] [--no-plot]
        """
        if self._block is not None:
            raise UsageError("this cell is measured already")
        try:
            arguments = _parser().parse_args(shlex.split(line))
            self._block = _block(arguments)
            self._into, self._plot, self._deeper = arguments.into, not arguments.no_plot, 0
            self._shell.events.register("pre_run_cell", self._cell_begins)
            self._shell.events.register("post_run_cell", self._cell_ended)
            self._block.__enter__()
        except BaseException as error:
            self._forget()
            if isinstance(error, (ValueError, WrongUsage, ArgumentTypeError)):
                raise UsageError(f"%%measure: {error}. The cell was not run") from None
            raise

    def _forget(self) -> None:
        if self._block is not None:
            self._block = None
            self._shell.events.unregister("pre_run_cell", self._cell_begins)
            self._shell.events.unregister("post_run_cell", self._cell_ended)

    def _cell_begins(self, _: object = None) -> None:
        self._deeper += 1

    def _cell_ended(self, _: object = None) -> None:
        if self._deeper:
            self._deeper -= 1
            return
        block = self._block
        if block is None:
            return
        self._forget()
        block.__exit__(None, None, None)
        if self._into is not None:
            self._shell.user_ns[self._into] = block
        print(block)
        if block.svg and self._plot:
            self._shell.display_pub.publish({"image/svg+xml": block.svg, "text/plain": block.text_line})


def _parser() -> Parser:
    parser = Parser(prog="%%measure", add_help=False)
    add_device_options(parser)
    option = parser.add_argument
    option("--label", default="")
    option("--idle", type=seconds, default=0.0)
    option("--output", type=Path)
    option("--into", type=_name)
    option("--no-plot", action="store_true")
    return parser


def _name(text: str) -> str:
    if not text.isidentifier():
        raise ArgumentTypeError(f"{text!r} is not the name of a variable")
    return text


def _block(arguments: Any) -> MeasuredBlock:
    return measure(
        arguments.label,
        output=arguments.output,
        drivers=arguments.drivers,
        rates_hz=dict(arguments.rate),
        settings=merged(arguments.set),
        idle_s=arguments.idle,
        separate=True,
        plot=not arguments.no_plot,
    )
