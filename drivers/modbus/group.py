"""Readings of one Modbus meter as rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from drivers.contract import Accuracy, Channel, DeviceLost, Group, ReadFailed, Row, Scope, Status
from drivers.links import LinkLost
from drivers.modbus.client import BadAnswer, Refusal, RegisterReader
from drivers.modbus.decoding import Request, Value, decode, disagreeing
from drivers.modbus.register_map import UNITS, Register, RegisterMap

MOST_FAILURES = 3  # readings in a row without an answer: the meter is gone
_HIGHEST_HZ = 10.0
_QUESTIONS = 2.0  # in an update period, so that none is missed
_SLACK_STEPS = 2  # by which a count may be ahead of the power
_UNBOUNDED_WATTS = 1e6  # that no such meter measures
_NS = 1e9

DISAGREE = "power, voltage, current and power factor of a reading do not belong together: it is not used"
IMPOSSIBLE = "a register holds what cannot be true: it is not used; check the register map"
OVER = "the load is beyond the meter's range: these readings are not used"
JUMPED = "the energy counter jumped: that reading is not used"
RESET = "the energy counter went back: it was reset or broken off there, and the energy across that is not known"


class RegisterGroup(Group):
    """All values of one meter."""

    name = "power"
    max_hz = 20.0

    def __init__(
        self,
        reader: RegisterReader,
        described: RegisterMap,
        requests: Sequence[Request],
        channels: Sequence[Channel],
        *,
        period_s: float | None,
        clock_ns: Callable[[], int],
    ) -> None:
        """`channels` in the order of the map's registers."""
        self.channels = tuple(channels)
        self.default_hz = min(_QUESTIONS / period_s, _HIGHEST_HZ) if period_s is not None else 1.0
        self._reader = reader
        self._described = described
        self._requests = requests
        self._clock_ns = clock_ns
        self._failures = 0
        self._last: list[Value] | None = None
        self._counts: dict[int, _Count] = {
            place: _Count(channel, _most_watts(described, register))
            for place, (channel, register) in enumerate(zip(channels, described.register, strict=True))
            if register.is_counter
        }
        self._remarks: list[str] = []

    def read(self) -> Sequence[Row]:
        """A row. Values that are all the same as before are STALE: to the last digit, only an old update is.

        Raises:
            ReadFailed, DeviceLost: see there.
        """
        begin_ns = self._clock_ns()
        try:
            values = self.read_values()
        except LinkLost as error:
            raise DeviceLost(f"the line to the meter is gone ({error})") from error
        except (BadAnswer, Refusal) as error:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                raise DeviceLost(f"it does not answer any more ({error})") from error
            raise ReadFailed(str(error)) from error
        end_ns = self._clock_ns()
        self._failures = 0
        repeated = values == self._last
        self._last = values
        t_ns = (begin_ns + end_ns) // 2
        out: list[float | int] = []
        statuses = bytearray()
        for place, (value, status) in enumerate(values):
            if place in self._counts and status == Status.NEW:
                assert isinstance(value, int)
                status, remark = self._counts[place].judge(t_ns, value)
                if remark:
                    self._remarks.append(remark)
            out.append(value)
            statuses.append(Status.STALE if repeated and status == Status.NEW else status)
        return [Row(t_ns, end_ns - begin_ns, out, bytes(statuses) if any(statuses) else None)]

    def read_values(self) -> list[Value]:
        """What the registers hold, in the channels' units; of a counter whole steps.

        Raises:
            LinkLost, BadAnswer, Refusal: see there.
        """
        found: dict[tuple[int, int], int] = {}
        for function, address, count in self._requests:
            words = self._reader.read(function, address, count)
            found.update(((function, address + place), word) for place, word in enumerate(words))
        values = []
        for register in self._described.register:
            words = [found[register.function, register.address + place] for place in range(register.size)]
            value, status = decode(register, words)
            if status == Status.NEW and not register.is_counter:
                value *= register.unit_scale
            # one NaN that equals itself, so that readings can be compared
            values.append(Value(value if status == Status.NEW else _absent(register), status))
        if any(status == Status.INVALID for _, status in values):
            self._remarks.append(IMPOSSIBLE)
        if any(status == Status.OVER_RANGE for _, status in values):
            self._remarks.append(OVER)
        return self._without_disagreeing(values)

    def remarks(self) -> Sequence[str]:
        """See `Group.remarks`."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def _without_disagreeing(self, values: list[Value]) -> list[Value]:
        registers = self._described.register
        kinds = {(r.quantity, r.part): value for r, value in zip(registers, values, strict=True)}
        wrong = disagreeing(self._described, kinds)
        if not wrong:
            return values
        self._remarks.append(DISAGREE)
        return [
            Value(_absent(register), Status.INVALID) if register.part in wrong and value.status == Status.NEW else value
            for register, value in zip(registers, values, strict=True)
        ]


class _Count:
    """What an energy counter may do: grow no faster than its power allows. One that does otherwise says so twice."""

    def __init__(self, channel: Channel, most_watts: float) -> None:
        self._most_steps_per_ns = most_watts / channel.scale / _NS
        self._modulus = channel.modulus
        self._good: tuple[int, int] | None = None
        self._doubted: tuple[int, int] | None = None

    def judge(self, t_ns: int, raw: int) -> tuple[Status, str]:
        """Whether it can be believed, and what to say of it."""
        if self._good is None or self._follows(self._good, t_ns, raw):
            self._good, self._doubted = (t_ns, raw), None
            return Status.NEW, ""
        if self._doubted is not None and self._follows(self._doubted, t_ns, raw):
            went_back = raw < self._good[1]
            self._good, self._doubted = (t_ns, raw), None
            return Status.NEW, RESET if went_back else JUMPED
        self._doubted = (t_ns, raw)
        return Status.INVALID, JUMPED

    def _follows(self, before: tuple[int, int], t_ns: int, raw: int) -> bool:
        grown = raw - before[1]
        if grown < 0 and self._modulus is not None:
            grown += self._modulus
        return 0 <= grown <= self._most_steps_per_ns * (t_ns - before[0]) + _SLACK_STEPS


def _absent(register: Register) -> float | int:
    return 0 if register.is_counter else math.nan


def _most_watts(described: RegisterMap, counter: Register) -> float:
    for register in described.register:
        if (register.quantity, register.part) == ("power", counter.part) and register.highest is not None:
            return register.highest * register.unit_scale
    return _UNBOUNDED_WATTS


def describe_channels(
    described: RegisterMap, name: str, device: str, scope: Scope, period_s: float | None, accuracy: Accuracy | None
) -> list[Channel]:
    """The channels of a map, in its order. `accuracy` is the user's of power, instead of what the map says."""
    whole = any(not register.part and register.quantity in ("power", "energy") for register in described.register)
    channels = []
    for register in described.register:
        counts = register.quantity in ("power", "energy")
        own = f"{device}-{register.part}" if register.part else device
        inside = bool(register.part) and whole
        step = register.step if register.step is not None else 1.0
        stated = None
        if register.accuracy_fraction is not None:
            stated = Accuracy(
                reading_fraction=register.accuracy_fraction,
                absolute=register.accuracy_absolute * register.unit_scale,
                source=register.accuracy_source,
            )
        channels.append(
            Channel(
                name=f"{name}/{own}/{register.quantity}",
                device=own,
                quantity=register.quantity,
                unit=next(iter(UNITS[register.quantity])),
                kind="counter" if register.is_counter else "gauge",
                scope=("rail" if inside else scope) if counts else "none",
                parent=device if inside else None,
                model=described.title,
                scale=step * register.scale * register.unit_scale if register.is_counter else 1.0,
                modulus=register.modulus,
                update_period_s=period_s,
                window_s=None if register.is_counter else described.window_s,
                accuracy=accuracy if accuracy is not None and register.quantity == "power" else stated,
                description=f"register {register.address:#x}",
            )
        )
    return channels
