"""What `power-agent devices` prints: every channel that can be measured, and why the rest cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import msgspec
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from drivers.contract import Accuracy, Channel, Group
from drivers.discovery import Opened, Refused
from power_agent.characteristics import NOTHING_KNOWN, Characteristics

# Columns are added as there is room for them.
_UPDATE_AND_WINDOW_FROM_WIDTH = 64
_KIND_AND_SCOPE_FROM_WIDTH = 100
_SOURCES_FROM_WIDTH = 100
_DEVICE_WIDTH, _NARROW_DEVICE_WIDTH = 20, 12  # at most, of the column of devices
_MODELS = 4  # of devices, in a driver's heading
_UNKNOWN = "–"
_LEGEND = (
    "rate: how often it is read, unless told otherwise; update: how often the device has a new value; "
    f"window: what a value averages over; {_UNKNOWN}: unknown. --json tells more of each channel."
)


@dataclass(frozen=True)
class _Line:
    """Channels of a device that are alike in all that is told. Each channel of power or energy has its own."""

    names: tuple[str, ...]
    of_power: bool  # or energy
    unit: str
    kind: str
    scope: str
    rate_hz: float
    update_s: float | None
    window_s: float | None
    accuracy: Accuracy | None
    estimate: bool
    model: str  # of power only: what else is read is told without it


_Entry = tuple[str, list[_Line]]  # devices that are alike, and their lines


def as_text(results: Sequence[Opened | Refused], characteristics: Characteristics = NOTHING_KNOWN) -> str:
    """Tables for the person at the terminal; in colour only where stdout is one, and not with NO_COLOR set."""
    console = Console(highlight=False)
    with console.capture() as capture:
        _show(results, console, characteristics)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _show(results: Sequence[Opened | Refused], console: Console, characteristics: Characteristics) -> None:
    opened = [result for result in results if isinstance(result, Opened)]
    refused = [result for result in results if isinstance(result, Refused)]
    lines = [_lines_by_device(driver, characteristics) for driver in opened]
    power = [_merge_devices(each, of_power=True) for each in lines]
    others = [_merge_devices(each, of_power=False) for each in lines]
    # The first column is equally wide in all tables, so that the others stand in line down the page.
    longest = max((len(device) for entries in (*power, *others) for device, _ in entries), default=0)
    device_width = max(
        len("device"),
        min(longest, _DEVICE_WIDTH if console.width >= _UPDATE_AND_WINDOW_FROM_WIDTH else _NARROW_DEVICE_WIDTH),
    )
    for driver, of_power, of_else in zip(opened, power, others, strict=True):
        console.print(Text.assemble((driver.name, "bold"), (f"  {_heading(driver)}", "dim")))
        if of_power:
            console.print(_indented(_power_table(of_power, device_width, console.width)))
        if of_else:
            console.print(_indented(_others_table(of_else, device_width, below=of_power[-1][0] if of_power else "")))
        if console.width >= _SOURCES_FROM_WIDTH:
            for source in _sources(of_power):
                console.print(_indented(Text(source, style="dim")))
        for line in _characterised(driver, characteristics):
            console.print(_indented(Text(line, style="dim")))
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


def as_json(results: Sequence[Opened | Refused], characteristics: Characteristics = NOTHING_KNOWN) -> str:
    """The same for programs: {"drivers": [{"name", "usable", "groups" or "reason" and "fix"}, …]}."""
    drivers: list[dict[str, object]] = []
    for result in results:
        if isinstance(result, Refused):
            drivers.append({"name": result.name, "usable": False, "reason": result.reason, "fix": result.fix})
            continue
        groups = [
            {
                "name": g.name,
                "default_hz": g.default_hz,
                "max_hz": g.max_hz,
                "channels": [characteristics.fill(channel) for channel in g.channels],
            }
            for g in result.driver.groups
        ]
        notes = [{"reason": note.reason, "fix": note.fix} for note in result.driver.notes]
        drivers.append({"name": result.name, "usable": True, "notes": notes, "groups": groups})
    return msgspec.json.format(msgspec.json.encode({"drivers": drivers}), indent=2).decode()


def _lines_by_device(opened: Opened, characteristics: Characteristics) -> dict[str, list[_Line]]:
    """Lines of each device, devices in the order in which they come."""
    devices: dict[str, list[_Line]] = {}
    for group in opened.driver.groups:
        for channel in group.channels:
            lines = devices.setdefault(channel.device, [])
            line = _line(opened.name, characteristics.fill(channel), group)
            for place, other in enumerate(lines):
                if not line.of_power and replace(other, names=line.names) == line:
                    lines[place] = replace(other, names=other.names + line.names)
                    break
            else:
                lines.append(line)
    return devices


def _line(driver: str, channel: Channel, group: Group) -> _Line:
    name = channel.name.removeprefix(f"{driver}/").removeprefix(f"{channel.device}/")
    return _Line(
        names=(name,),
        of_power=channel.quantity in ("power", "energy"),
        unit=channel.unit,
        kind=channel.kind,
        scope=channel.scope,
        rate_hz=group.default_hz,
        update_s=channel.update_period_s,
        window_s=channel.window_s,
        accuracy=channel.accuracy,
        estimate=channel.estimate,
        model=channel.model if channel.quantity in ("power", "energy") else "",
    )


def _merge_devices(devices: Mapping[str, list[_Line]], *, of_power: bool) -> list[_Entry]:
    """Of power or of all else. Devices numbered one after another and alike in everything are one: `gpu0…7`."""
    entries: list[tuple[str, str, list[_Line]]] = []  # first device, last device, lines
    for device, lines_of_all in devices.items():
        lines = [line for line in lines_of_all if line.of_power == of_power]
        stem, number = _numbered(device)
        place = next(
            (i for i, e in enumerate(entries) if e[2] == lines and _numbered(e[1]) == (stem, number - 1)), None
        )
        if place is not None:
            entries[place] = (entries[place][0], device, lines)
        elif lines:
            entries.append((device, device, lines))
    return [(first if first == last else f"{first}…{_numbered(last)[1]}", lines) for first, last, lines in entries]


def _numbered(device: str) -> tuple[str, int]:
    stem = device.rstrip("0123456789")
    digits = device[len(stem) :]
    return stem, int(digits) if digits.isascii() and digits else -1


def _heading(opened: Opened) -> str:
    """How many channels, of what: `192 channels · 8 × NVIDIA H100`."""
    devices = {channel.device: channel.model for group in opened.driver.groups for channel in group.channels}
    told = []
    for model in dict.fromkeys(filter(None, devices.values())):
        stems = [_numbered(device)[0] for device, of in devices.items() if of == model]
        alike = len(stems) > 1 and len(set(stems)) == 1
        told.append(f"{len(stems)} × {model}" if alike else model)
    if len(told) > _MODELS:
        told = [*told[:_MODELS], "…"]
    count = sum(len(group.channels) for group in opened.driver.groups)
    channels = f"{count} channels" if count != 1 else "1 channel"
    return f"{channels} · {', '.join(told)}" if told else channels


def _power_table(entries: Sequence[_Entry], device_width: int, width: int) -> Table:
    """A line for each channel of power or energy."""
    has_update, has_kind = width >= _UPDATE_AND_WINDOW_FROM_WIDTH, width >= _KIND_AND_SCOPE_FROM_WIDTH
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("device", overflow="fold", style="cyan", width=device_width)
    table.add_column("channel", overflow="fold", min_width=len("power ESTIMATE") if has_update else None)
    table.add_column("unit", no_wrap=True)
    if has_kind:
        table.add_column("kind", no_wrap=True, min_width=len("counter"))
        table.add_column("scope", no_wrap=True, min_width=len("package"))
    table.add_column("rate", no_wrap=True, justify="right", min_width=len("10 Hz"))
    if has_update:
        table.add_column("update", no_wrap=True, justify="right", min_width=len("100 ms"))
        table.add_column("window", no_wrap=True, justify="right", min_width=len("instant"))
    table.add_column("accuracy", min_width=len("±50 %"))
    for device, lines in entries:
        for place, line in enumerate(lines):
            label = Text(", ".join(line.names))
            if line.estimate:
                label.append(" ESTIMATE", style="magenta")
            cells: list[RenderableType] = [device if place == 0 else "", label, line.unit]
            if has_kind:
                cells += [line.kind, line.scope if line.scope != "none" else _UNKNOWN]
            cells.append(_rate(line))
            if has_update:
                cells += [_seconds(line.update_s), _seconds(line.window_s)]
            table.add_row(*cells, _accuracy(line.accuracy, line.unit))
    return table


def _others_table(entries: Sequence[_Entry], device_width: int, below: str) -> Table:
    """What else is read of each device: at which rate, and its names. `below`: the device that stands above."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", style="cyan", width=device_width)
    table.add_column(no_wrap=True, justify="right", min_width=len("10 Hz"))
    table.add_column(overflow="fold")
    for device, lines in entries:
        label = device if device != below else ""
        for rate, alike in groupby(lines, key=_rate):
            told = [", ".join(line.names) + (f" ({line.unit})" if line.unit else "") for line in alike]
            table.add_row(label, rate, Text(" · ".join(told), style="dim"))
            label = ""
    return table


def _sources(entries: Sequence[_Entry]) -> list[str]:
    """Where the accuracies come from, each once."""
    lines = [line for _, lines in entries for line in lines]
    known = [(line.accuracy, line.unit) for line in lines if line.accuracy is not None and line.accuracy.source]
    return list(dict.fromkeys(f"{_accuracy(accuracy, unit)}: {accuracy.source}" for accuracy, unit in known))


def _characterised(opened: Opened, characteristics: Characteristics) -> list[str]:
    """What was found out about channels here that stands in no column."""
    lines = []
    for group in opened.driver.groups:
        for channel in group.channels:
            known = characteristics.of(channel)
            if known is not None:
                name = channel.name.removeprefix(f"{opened.name}/")
                delay = f"delay {_seconds(known.delay_s)} ± {_seconds(known.delay_u_s)}"
                lines.append(f"{name}: {delay}, noise {known.noise:.2g} {channel.unit}, characterised on {known.day}")
    return lines


def _rate(line: _Line) -> str:
    return f"{line.rate_hz:.3g} Hz"


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
