"""What a driver is: the words every device is described in, and what its code may and must do.

A driver opens a kind of device and offers *groups*: sets of channels that are read together, at one rate. A group
answers `read()` with rows; each row holds one value per channel and the monotonic instant that it stands for.
"""

from __future__ import annotations

import enum
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import msgspec

Kind = Literal["gauge", "counter", "state"]
Quantity = Literal[
    "power",
    "energy",
    "temperature",
    "frequency",
    "utilization",
    "fan",
    "voltage",
    "current",
    "limit",
    "throttle",
    "duration",
    "memory",
    "traffic",
    "charge",
    "power_factor",
    "uncertainty",  # of another channel of the device, as its specification has it
]
Scope = Literal[
    "wall",  # everything behind a plug
    "node",  # a whole machine as its own supply or BMC sees it
    "psys",  # the platform domain of RAPL: packages and memory, and more
    "module",  # a board that joins processors and accelerators (Grace Hopper, an SXM or OAM module)
    "package",  # a CPU package or die
    "core",  # the cores inside a package
    "uncore",  # the rest inside a package (an integrated GPU on client parts)
    "dram",
    "gpu",
    "gpu_memory",  # the memory inside a gpu
    "rail",  # a named supply rail whose place in the tree is unknown
    "battery",
    "none",  # not a power or energy channel
]


class Status(enum.IntEnum):
    """Whether one value of one channel can be believed."""

    NEW = 0
    STALE = 1  # the device said that it had no newer value
    MISSING = 2  # no value; what stands in its place means nothing
    OVER_RANGE = 3  # the device clipped
    INVALID = 4  # a value came, and it cannot be true


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a rectangular distribution: true value within reading ± (reading_fraction·|reading| + absolute)."""

    reading_fraction: float
    absolute: float = 0.0  # in the channel's unit
    per_second: float = 0.0  # of a counter, in its unit: what an offset in power adds to ± absolute with time
    source: str = ""  # where the figure comes from, for the reader of a report


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity of one device.

    `name` is unique within a host: `driver/device/quantity`, such as `nvml/gpu3/power_instant`.
    """

    name: str
    device: str  # the instance in the power tree: "gpu3", "package-0"; channels of one device share it
    quantity: Quantity
    unit: str  # of value × scale: "W", "J", "°C", "MHz", "%", "" …
    kind: Kind
    scope: Scope = "none"
    parent: str | None = None  # device that physically contains this one, where the driver knows it
    model: str = ""  # of the device; channels of one model share their error sources
    scale: float = 1.0  # a raw value times this is in `unit`; a counter's raw values are integers
    modulus: int | None = None  # of a counter: raw values wrap at this; None: never wraps, a decrease is a reset
    update_period_s: float | None = None  # how often the device has a new value; None: unknown
    stamped: bool = False  # rows carry the device's own instant of the update, not that of our poll
    window_s: float | None = None  # what a value averages over, ending at its update; 0: an instant; None: unknown
    delay_s: float = 0.0  # how long before its update the window ends; without an update period, before it is read
    delay_u_s: float = 0.0  # expanded uncertainty (k = 2) of that
    accuracy: Accuracy | None = None  # None: unknown
    estimate: bool = False  # modelled, not measured
    description: str = ""


class Row(NamedTuple):
    """One reading of every channel of a group, in the order of `Group.channels`."""

    t_ns: int  # monotonic instant that the values stand for: the middle of the read
    read_ns: int  # how long the read took
    values: Sequence[float | int]  # int for a counter or a state, float for a gauge; anything where not valid
    statuses: bytes | None = None  # one Status per channel; None: all NEW


class ReadFailed(Exception):
    """This reading did not come; the next may. The row is recorded as missing."""


class DeviceLost(Exception):
    """The device is gone; only opening the driver again can help. The sampler retries, with pauses."""


class Finished(Exception):
    """The device has no more to give, as a replayed trace at its end."""


class Unavailable(Exception):
    """A device cannot be used here: why, and the command or step that would change it."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


class Group(ABC):
    """Channels that are read together. A group belongs to one thread and need not lock."""

    name: str  # unique within the driver: "power", "thermal"
    channels: tuple[Channel, ...]
    default_hz: float
    max_hz: float  # reading faster than this gives nothing, or does harm
    can_capture: bool = False

    def capture(self) -> None:
        """Take a reading now and keep it: the next `read` gives it before its own, and tells what failed.

        Called between reads at fast rates, at most for a fifth of a second, where `can_capture` is true. It is
        worth offering where understanding an answer takes longer than having it.
        """
        raise NotImplementedError

    @abstractmethod
    def read(self) -> Sequence[Row]:
        """Read now. One row for a device that is polled; none, one or many for one that streams.

        Raises:
            ReadFailed, DeviceLost, Finished: see there. Anything else counts as ReadFailed and is logged.
        """

    def remarks(self) -> Sequence[str]:
        """What the reader of the report should know of the readings since this was asked: what, and what to do.

        The same words for the same matter: the event log counts them. Asked after each read.
        """
        return ()


class DriverOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver is opened with. Roots and clocks come in here, so that tests bring their own."""

    root: Path = Path("/")  # of /sys, /proc and /dev
    instance: str = ""  # which of several devices of this kind, as the user calls it: "rack1" of "yokogawa:rack1"
    settings: Mapping[str, str] = {}  # the user's words for this driver: {"idle_watts": "40"}
    clock_ns: Callable[[], int] = time.monotonic_ns
    measured_scopes: frozenset[str] = frozenset()  # scopes with power or energy from drivers opened before


class Driver(ABC):
    """One kind of device on this host. Opening it is cheap and has no side effect on the device."""

    name: ClassVar[str]
    groups: tuple[Group, ...]
    notes: tuple[Unavailable, ...] = ()  # parts that cannot be used although the driver as a whole can

    @classmethod
    @abstractmethod
    def open(cls, options: DriverOptions) -> Driver:
        """Find the devices and open them.

        Raises:
            Unavailable: nothing of this kind can be used here.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything. Called once; must not raise."""
