"""Reads NVML: one call at a time into a source, all sources of a group into a row."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from operator import ge, le
from struct import Struct
from types import ModuleType

from drivers.capturing import CapturingGroup
from drivers.contract import Channel, DeviceLost, Row, Status

Answer = tuple[int, float]  # nvmlReturn and the raw value; the value means nothing unless nvmlReturn is 0

# nvmlFieldValue_t: fieldId, scopeId, timestamp and latencyUsec (not used), then valueType, nvmlReturn, value.
_ENTRY = Struct("=24xIi8s")
# Position = nvmlValueType_t: double, unsigned int, unsigned long, unsigned long long, long long, int, unsigned short.
_VALUE = tuple(Struct(layout) for layout in ("=d", "=I4x", "=Q", "=Q", "=q", "=i4x", "=H6x"))

# nvmlReturn_t of a GPU, or a driver, that no later call can reach either: UNINITIALIZED, DRIVER_NOT_LOADED,
# GPU_IS_LOST, RESET_REQUIRED, LIB_RM_VERSION_MISMATCH, GPU_NOT_FOUND.
_GONE = frozenset({1, 9, 15, 16, 18, 28})

INT64 = (0, 2**63 - 1)  # what a counter or a state may be; NVML's "not available" is 2^64 - 1
NOT_A_VALUE_TYPE = -1  # stands for nvmlReturn where a field carries a type that nvml.h does not list


class FieldValues:
    """Several fields of one GPU in one nvmlDeviceGetFieldValues.

    The request array is built once: pynvml's own function builds it again at each call, which costs three times more.
    """

    def __init__(self, nvml: ModuleType, handle: object, fields: Sequence[tuple[int, int]]) -> None:
        """`fields` are pairs of field id and scope id."""
        array = (nvml.c_nvmlFieldValue_t * len(fields))()
        for entry, (field_id, scope_id) in zip(array, fields, strict=True):
            entry.fieldId = field_id
            entry.scopeId = scope_id
        # Indexing gives a function object of our own, attribute access the one that pynvml sets up and shares.
        self._call = partial(nvml.nvmlLib["nvmlDeviceGetFieldValues"], handle, len(fields))
        self._array = array

    def __call__(self) -> list[Answer]:
        """One answer per field. The call may succeed while a field fails."""
        failed = self._call(self._array)
        return [(failed, 0)] * len(self._array) if failed else _answers(bytes(self._array))


# What FieldBlock took: an nvmlReturn per call, and the entries that they filled.
Block = tuple[list[int], bytes]


class FieldBlock:
    """The entries of several FieldValues in one piece of memory, so that all are taken, and understood, in one go."""

    def __init__(self, parts: Sequence[FieldValues]) -> None:
        """Moves the parts' entries together; each part goes on working on its own."""
        self._sizes = [ctypes.sizeof(part._array) for part in parts]
        self._memory = ctypes.create_string_buffer(sum(self._sizes))
        for part, offset in zip(parts, accumulate(self._sizes, initial=0), strict=False):
            ctypes.memmove(ctypes.byref(self._memory, offset), part._array, ctypes.sizeof(part._array))
            part._array = type(part._array).from_buffer(self._memory, offset)
        self._calls = [partial(part._call, part._array) for part in parts]
        _, entries = self.take()
        types = tuple(value_type for value_type, _, _ in _ENTRY.iter_unpack(entries))
        known = all(value_type < len(_VALUE) for value_type in types)
        values = "".join("32x" + _VALUE[t].format.lstrip("=") for t in types) if known else ""
        self._values = Struct("=" + values) if known else None
        self._heads = Struct("=" + "24xIi8x" * len(types))
        self._plain_heads = tuple(number for value_type in types for number in (value_type, 0))

    def take(self) -> Block:
        """Ask for every field."""
        return [call() for call in self._calls], self._memory.raw

    def plain(self, taken: Block) -> tuple[float, ...] | None:
        """Every value, in order; None where anything but plain success came: then see `answers`."""
        codes, raw = taken
        if self._values is None or any(codes) or self._heads.unpack(raw) != self._plain_heads:
            return None
        return self._values.unpack(raw)

    def answers(self, taken: Block) -> list[Answer]:
        """One answer per field."""
        codes, raw = taken
        answers: list[Answer] = []
        for code, size, offset in zip(codes, self._sizes, accumulate(self._sizes, initial=0), strict=False):
            answers += [(code, 0)] * (size // _ENTRY.size) if code else _answers(raw[offset : offset + size])
        return answers


def _answers(entries: bytes) -> list[Answer]:
    # Unpacking the bytes takes a third of the time of ctypes' attributes.
    answers: list[Answer] = []
    for value_type, code, raw in _ENTRY.iter_unpack(entries):
        if value_type < len(_VALUE):
            answers.append((code, _VALUE[value_type].unpack(raw)[0]))
        else:
            answers.append((code or NOT_A_VALUE_TYPE, 0))
    return answers


class SimpleCall:
    """One pynvml function that gives one number or several."""

    def __init__(self, nvml: ModuleType, function: Callable[[], Sequence[int]], count: int = 1) -> None:
        self._error: type[Exception] = nvml.NVMLError
        self._function = function
        self._count = count

    def __call__(self) -> list[Answer]:
        """One answer per number."""
        try:
            return [(0, value) for value in self._function()]
        except self._error as error:
            return [(error.value, 0)] * self._count  # type: ignore[attr-defined]  # of NVMLError


@dataclass(frozen=True)
class Source:
    """One NVML call of one GPU and the channels that it fills."""

    gpu: int
    call: Callable[[], Sequence[Answer]]
    channels: tuple[Channel, ...]
    plausible: tuple[tuple[float, float], ...]  # per channel: raw values outside of this cannot be true


def status_of(answer: Answer, plausible: tuple[float, float]) -> Status:
    """Whether an answer can be believed. NVML's "not available" is all ones, which no plausible range holds."""
    code, value = answer
    if code == NOT_A_VALUE_TYPE:
        return Status.INVALID
    if code:
        return Status.MISSING
    return Status.NEW if plausible[0] <= value <= plausible[1] else Status.INVALID


# Begin and end in nanoseconds, and what came: a block, or, where not all is had through fields, answers.
_Taken = tuple[int, int, Block | None, Sequence[Answer]]


class NvmlGroup(CapturingGroup[_Taken]):
    """The sources of all GPUs that are read together."""

    def __init__(
        self, name: str, sources: Sequence[Source], default_hz: float, max_hz: float, clock_ns: Callable[[], int]
    ) -> None:
        super().__init__(self._ask)
        self.name = name
        self.channels = tuple(channel for source in sources for channel in source.channels)
        self.default_hz = default_hz
        self.max_hz = max_hz
        self._sources = tuple(sources)
        self._gpus = frozenset(source.gpu for source in sources)
        self._integers = tuple(channel.kind != "gauge" for channel in self.channels)
        self._plausible = tuple(limits for source in sources for limits in source.plausible)
        self._lowest = tuple(low for low, _ in self._plausible)
        self._highest = tuple(high for _, high in self._plausible)
        fields = [source.call for source in sources if isinstance(source.call, FieldValues)]
        self._block = FieldBlock(fields) if len(fields) == len(sources) else None
        self._clock_ns = clock_ns

    def _ask(self) -> _Taken:
        start_ns = self._clock_ns()
        if self._block is not None:
            block = self._block.take()
            return start_ns, self._clock_ns(), block, ()
        answers = [answer for source in self._sources for answer in source.call()]
        return start_ns, self._clock_ns(), None, answers

    def _row(self, taken: _Taken) -> Row:
        """See `CapturingGroup`: while one GPU can be reached, only the values of the others are missing."""
        start_ns, end_ns, block, answers = taken
        middle_ns, read_ns = (start_ns + end_ns) // 2, end_ns - start_ns
        if block is not None:
            assert self._block is not None
            plain = self._block.plain(block)
            if plain is not None and all(map(le, self._lowest, plain)) and all(map(ge, self._highest, plain)):
                return Row(middle_ns, read_ns, plain)
            answers = self._block.answers(block)
        values: list[float | int] = []
        statuses = bytearray(len(answers))
        failures = False
        for index, answer in enumerate(answers):
            code, value = answer
            low, high = self._plausible[index]
            if code or not low <= value <= high:
                failures = True
                statuses[index] = status_of(answer, (low, high))
                values.append(0 if self._integers[index] else float("nan"))
            else:
                values.append(value if self._integers[index] else float(value))
        if failures:
            self._raise_if_all_gone([code for code, _ in answers])
        return Row(middle_ns, read_ns, values, bytes(statuses) if failures else None)

    def _raise_if_all_gone(self, codes: Sequence[int]) -> None:
        gpus = (source.gpu for source in self._sources for _ in source.channels)
        gone = {gpu: code for gpu, code in zip(gpus, codes, strict=True) if code in _GONE}
        if gone.keys() == self._gpus:
            told = ", ".join(f"gpu{gpu}: nvmlReturn {code}" for gpu, code in sorted(gone.items()))
            raise DeviceLost(f"NVML reaches no GPU any more ({told}); look for Xid errors: sudo dmesg | grep -i xid")
