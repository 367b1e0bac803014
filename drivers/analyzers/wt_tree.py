"""The command tree of Yokogawa's meters, which others follow: settings, ranges and numeric items in its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drivers.analyzers.description import Knob, Ranges

SWITCH: Mapping[str, str] = {"on": "ON", "off": "OFF"}


def setting(
    command: str, name: str = "", *, words: Mapping[str, str] | None = None, always: str = "", optional: bool = False
) -> Knob:
    """A setting that is asked for and set by one command. See `Knob`."""
    return Knob(
        name=name,
        ask=f"{command}?",
        set=f"{command} {{value}}",
        words=dict(words or {}),
        always=always,
        optional=optional,
    )


def input_ranges(
    branch: str, volts: Sequence[float], amperes: Sequence[float], halving_crest_factors: tuple[str, ...]
) -> Ranges:
    """Ranges below a branch, such as `:INP`."""

    def both(leaf: str) -> tuple[str, str]:
        return f"{branch}:{leaf}?", f"{branch}:{leaf} {{value}}"

    ask_volts, set_volts = both("VOLT:RANG")
    ask_amperes, set_amperes = both("CURR:RANG")
    ask_auto_volts, set_auto_volts = both("VOLT:AUTO")
    ask_auto_amperes, set_auto_amperes = both("CURR:AUTO")
    return Ranges(
        volts=tuple(volts),
        amperes=tuple(amperes),
        ask_volts=ask_volts,
        set_volts=set_volts,
        ask_amperes=ask_amperes,
        set_amperes=set_amperes,
        ask_auto_volts=ask_auto_volts,
        set_auto_volts=set_auto_volts,
        ask_auto_amperes=ask_auto_amperes,
        set_auto_amperes=set_auto_amperes,
        halving_crest_factors=halving_crest_factors,
    )


def numeric_items(count: str, functions: Sequence[str]) -> tuple[list[Knob], tuple[str, ...]]:
    """What `:NUM:NORM:VAL?` is to reply.

    Args:
        count: the word for how many items there are.
        functions: as `P,1`, in order.

    Returns:
        The settings that are changed by it, and the commands that choose it.
    """
    commands = [f":NUM:NORM:{count}", *(f":NUM:NORM:ITEM{place}" for place in range(1, len(functions) + 1))]
    chosen = [str(len(functions)), *functions]
    select = tuple(f"{command} {value}" for command, value in zip(commands, chosen, strict=True))
    return [setting(command) for command in commands], select
