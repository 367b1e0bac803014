"""What `power-agent devices` prints: every channel that can be measured, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import msgspec
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from drivers.contract import Accuracy, Channel, Group
from drivers.discovery import Opened, Refused

# Columns are added as there is room for them.
_KIND_AND_SCOPE_FROM_WIDTH = 100
_SOURCES_FROM_WIDTH = 140
_NAMES_WIDTH = 27  # at most, of the column of channel names; a longer list of names goes on in the next line
_DEVICE_WIDTH = 16  # at most, of the column of devices
_OTHERS_WIDTH = 44  # of the columns that are always there, with the space between them
_KIND_AND_SCOPE_WIDTH = 18
_UNKNOWN = "–"
_LEGEND = (
    "rate: how often it is read, unless told otherwise; update: how often the device has a new value; "
    f"window: what a value averages over; {_UNKNOWN}: unknown. --json tells more of each channel."
)


@dataclass(frozen=True)
class _Line:
    """Channels of a device that are alike in all that the table tells. Each channel of power or energy has its own."""

    names: tuple[str, ...]
    unit: str
    kind: str
    scope: str
    rate_hz: float
    update_s: float | None
    window_s: float | None
    accuracy: Accuracy | None
    estimate: bool
    model: str


def as_text(results: Sequence[Opened | Refused]) -> str:
    """Tables for the person at the terminal; in colour only where stdout is one, and not with NO_COLOR set."""
    console = Console(highlight=False)
    with console.capture() as capture:
        _show(results, console)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _show(results: Sequence[Opened | Refused], console: Console) -> None:
    opened = [result for result in results if isinstance(result, Opened)]
    refused = [result for result in results if isinstance(result, Refused)]
    tables = [_merge_devices(_lines_by_device(driver)) for driver in opened]
    # The first column is equally wide in all tables, so that the others stand in line down the page.
    device_width = max((len(device) for table in tables for device, _ in table), default=0)
    for driver, table in zip(opened, tables, strict=True):
        count = sum(len(group.channels) for group in driver.driver.groups)
        console.print(Text.assemble((driver.name, "bold"), (f"  {count} channels", "dim")))
        console.print(_indented(_channel_table(table, device_width, console.width)))
        for note in driver.driver.notes:
            console.print(_indented(_reason(note.reason, note.fix)))
        console.print()
    if opened:
        console.print(Text(_LEGEND, style="dim"))
    else:
        console.print(Text("Nothing can be measured here.", style="bold"))
    if refused:
        console.print()
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


def _lines_by_device(opened: Opened) -> dict[str, list[_Line]]:
    """Lines of each device, devices in the order in which they come."""
    devices: dict[str, list[_Line]] = {}
    for group in opened.driver.groups:
        for channel in group.channels:
            lines = devices.setdefault(channel.device, [])
            line = _line(opened.name, channel, group)
            for place, other in enumerate(lines):
                if channel.quantity not in ("power", "energy") and replace(other, names=line.names) == line:
                    lines[place] = replace(other, names=other.names + line.names)
                    break
            else:
                lines.append(line)
    return devices


def _line(driver: str, channel: Channel, group: Group) -> _Line:
    name = channel.name.removeprefix(f"{driver}/").removeprefix(f"{channel.device}/")
    return _Line(
        names=(name,),
        unit=channel.unit,
        kind=channel.kind,
        scope=channel.scope,
        rate_hz=group.default_hz,
        update_s=channel.update_period_s,
        window_s=channel.window_s,
        accuracy=channel.accuracy,
        estimate=channel.estimate,
        model=channel.model,
    )


def _merge_devices(devices: dict[str, list[_Line]]) -> list[tuple[str, list[_Line]]]:
    """Neighbours that are alike in everything become one entry: `gpu0…7`."""
    merged = []
    for lines, members in groupby(devices.items(), key=lambda item: item[1]):
        names = [device for device, _ in members]
        stem = names[0].rstrip("0123456789")
        merged.append((names[0] if len(names) == 1 else f"{names[0]}…{names[-1].removeprefix(stem)}", lines))
    return merged


def _channel_table(entries: Sequence[tuple[str, list[_Line]]], device_width: int, width: int) -> Table:
    has_kind, has_sources = width >= _KIND_AND_SCOPE_FROM_WIDTH, width >= _SOURCES_FROM_WIDTH
    device_width = min(device_width, _DEVICE_WIDTH)
    left = width - device_width - _OTHERS_WIDTH - (_KIND_AND_SCOPE_WIDTH if has_kind else 0)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("device", overflow="fold", style="cyan", width=device_width)
    table.add_column("channel", overflow="fold", width=max(8, min(_NAMES_WIDTH, left)))
    table.add_column("unit", no_wrap=True)
    if has_kind:
        table.add_column("kind", no_wrap=True, min_width=len("counter"))
        table.add_column("scope", no_wrap=True, min_width=len("package"))
    table.add_column("rate", no_wrap=True, justify="right", min_width=len("10 Hz"))
    table.add_column("update", no_wrap=True, justify="right")
    table.add_column("window", no_wrap=True, justify="right", min_width=len("instant"))
    table.add_column("accuracy")
    if has_sources:
        table.add_column("accuracy from", style="dim")
        table.add_column("model", style="dim")
    for device, lines in entries:
        for place, line in enumerate(lines):
            label = Text(", ".join(line.names))
            if line.estimate:
                label.append(" (estimate)", style="magenta")
            cells: list[RenderableType] = [device if place == 0 else "", label, line.unit]
            if has_kind:
                cells += [line.kind, line.scope if line.scope != "none" else _UNKNOWN]
            cells += [f"{line.rate_hz:.3g} Hz", _seconds(line.update_s), _seconds(line.window_s)]
            cells.append(_accuracy(line.accuracy, line.unit))
            if has_sources:
                cells += [line.accuracy.source if line.accuracy else "", line.model if place == 0 else ""]
            table.add_row(*cells)
    return table


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
