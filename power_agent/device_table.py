"""What `power-agent devices` prints: every channel that can be measured, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from drivers.contract import Accuracy, Channel, Group
from drivers.discovery import Opened, Refused

# Columns are added as there is room for them, in this order.
_SCOPE_FROM_WIDTH = 100
_DESCRIPTION_FROM_WIDTH = 140
_LONGEST_NAME = 24  # longer channel names fold
_ACCURACY_WIDTH = len("±50 % estimate")
_UNKNOWN = "–"
_LEGEND = (
    "rate: how often it is read, unless told otherwise; update: how often the device has a new value; "
    f"window: what a value averages over; {_UNKNOWN}: unknown"
)


def show(results: Sequence[Opened | Refused], console: Console | None = None) -> None:
    """Print tables for the person at the terminal; colour only on a terminal, and not with NO_COLOR set."""
    console = console or Console(highlight=False)
    opened = [result for result in results if isinstance(result, Opened)]
    refused = [result for result in results if isinstance(result, Refused)]
    tables = {driver.name: _channel_rows(driver, console.width) for driver in opened}
    # The first columns are equally wide in all tables, so that the others stand in line down the page.
    every_row = [row for rows in tables.values() for row in rows]
    device_width, name_width = (max((len(str(row[n])) for row in every_row), default=0) for n in (0, 1))
    for driver in opened:
        rows = tables[driver.name]
        table = _channel_table(console.width, device_width, name_width)
        for row in rows:
            table.add_row(*row)
        console.print(Text.assemble((driver.name, "bold"), (f"  {len(rows)} channels", "dim")))
        console.print(_indented(table))
        for note in driver.driver.notes:
            console.print(_indented(_reason(note.reason, note.fix)))
        console.print()
    if opened:
        console.print(Text(_LEGEND, style="dim"))
        console.print()
    else:
        console.print(Text("Nothing can be measured here.", style="bold"))
        console.print()
    if refused:
        console.print(Text("Cannot be used here", style="bold"))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for missing in refused:
            grid.add_row(Text(missing.name, style="yellow"), _reason(missing.reason, missing.fix))
        console.print(_indented(grid))


def as_json(results: Sequence[Opened | Refused]) -> str:
    """The same for programs: {"drivers": [{"name", "usable", "groups" or "reason" and "fix"}, …]}."""
    drivers: list[dict[str, object]] = []
    for result in results:
        if isinstance(result, Refused):
            drivers.append({"name": result.name, "usable": False, "reason": result.reason, "fix": result.fix})
            continue
        groups = [
            {"name": g.name, "default_hz": g.default_hz, "max_hz": g.max_hz, "channels": g.channels}
            for g in result.driver.groups
        ]
        notes = [{"reason": note.reason, "fix": note.fix} for note in result.driver.notes]
        drivers.append({"name": result.name, "usable": True, "notes": notes, "groups": groups})
    return msgspec.json.format(msgspec.json.encode({"drivers": drivers}), indent=2).decode()


def _channel_table(width: int, device_width: int, name_width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("device", no_wrap=True, style="cyan", min_width=device_width)
    table.add_column("channel", overflow="fold", min_width=min(name_width, _LONGEST_NAME))
    table.add_column("unit", no_wrap=True)
    table.add_column("kind", no_wrap=True, min_width=len("counter"))
    if width >= _SCOPE_FROM_WIDTH:
        table.add_column("scope", no_wrap=True, min_width=len("package"))
    table.add_column("rate", no_wrap=True, justify="right", min_width=len("10 Hz"))
    table.add_column("update", no_wrap=True, justify="right")
    table.add_column("window", no_wrap=True, justify="right", min_width=len("instant"))
    table.add_column("accuracy", no_wrap=True, min_width=_ACCURACY_WIDTH)
    if width >= _DESCRIPTION_FROM_WIDTH:
        table.add_column("description", style="dim")
    return table


def _channel_rows(opened: Opened, width: int) -> list[list[RenderableType]]:
    """One row of cells per channel, the channels of a device together, devices in the order in which they come."""
    channels = [(channel, group) for group in opened.driver.groups for channel in group.channels]
    by_device: dict[str, list[list[RenderableType]]] = {}
    for channel, group in channels:
        rows = by_device.setdefault(channel.device, [])
        rows.append(["" if rows else channel.device, *_cells(opened.name, channel, group, width)])
    return [row for rows in by_device.values() for row in rows]


def _cells(driver: str, channel: Channel, group: Group, width: int) -> list[RenderableType]:
    name = channel.name.removeprefix(f"{driver}/").removeprefix(f"{channel.device}/")
    accuracy = _accuracy(channel.accuracy, channel.unit)
    cells: list[RenderableType] = [name, channel.unit, channel.kind]
    if width >= _SCOPE_FROM_WIDTH:
        cells.append(channel.scope if channel.scope != "none" else _UNKNOWN)
    cells += [f"{group.default_hz:.3g} Hz", _seconds(channel.update_period_s), _seconds(channel.window_s)]
    cells.append(Text.assemble(accuracy, (" estimate", "magenta")) if channel.estimate else accuracy)
    if width >= _DESCRIPTION_FROM_WIDTH:
        cells.append(channel.description)
    return cells


def _accuracy(accuracy: Accuracy | None, unit: str) -> str:
    if accuracy is None:
        return _UNKNOWN
    parts = [f"{100 * accuracy.reading_fraction:.3g} %"] if accuracy.reading_fraction else []
    parts += [f"{accuracy.absolute:.3g} {unit}"] if accuracy.absolute else []
    return "±" + (f"({' + '.join(parts)})" if len(parts) > 1 else "".join(parts) or f"0 {unit}")


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    if seconds == 0:
        return "instant"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _reason(reason: str, fix: str) -> Table:
    """A reason, and below it what to do, with its lines aligned behind the arrow."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("✗", Text(reason))
    if fix:
        grid.add_row(Text("→", style="green"), Text(fix))
    return grid


def _indented(renderable: RenderableType) -> Padding:
    return Padding(renderable, (0, 0, 0, 2), expand=False)
