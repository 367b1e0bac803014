"""Marks: a workload says when its phases begin and end, and never notices whether anybody listens.

Each process appends one line a mark to a file of its own, in the directory that the environment variable
POWER_AGENT_MARKS names. Without that variable every call does nothing. docs/marks.md describes the files field by
field. Nothing here raises into the workload.
"""

from __future__ import annotations

import atexit
import os
import sys
from _thread import RLock, get_ident  # threading would be imported into every workload
from os import write
from time import monotonic_ns

from power_agent.mark_file import MarkFile, say
from power_agent.mark_lines import encode_details, encode_name, names

TYPE_CHECKING = False  # as in typing, whose import the workload is spared
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Literal, TypeVar

    Function = TypeVar("Function", bound=Callable[..., Any])
    _Given = tuple[object, object, bool, dict[str, Any], dict[str, Any]]  # index, rank, sync, work, attributes

DIRECTORY_VARIABLE = "POWER_AGENT_MARKS"
_SYNC = 2  # place in _Given
_LATEST_NS = 1 << 62

_file: MarkFile | None = None
_looked = False  # whether this process has looked for the environment variable
_look_lock = RLock()
_left: dict[str, MarkFile] = {}  # files of sessions that go on while this process marks into another, by directory


def _look() -> MarkFile | None:
    """Open this process's file at its first mark. None: nobody measures, or the file cannot be created."""
    global _file, _looked
    with _look_lock:
        if not _looked:
            directory = os.environ.get(DIRECTORY_VARIABLE)
            if directory:
                try:
                    _file = MarkFile(directory)
                except Exception as error:
                    say(f"marks are off in process {os.getpid()}: {error}")
            _looked = True
        return _file


def is_measured() -> bool:
    """Whether marks are kept: for code that would have to work out what to mark."""
    return (_file if _looked else _look()) is not None


def direct_to(directory: str | None) -> None:
    """Mark into this directory from now on, in this process and those that it starts; None: nobody measures.

    Phases that are open end in the file that they began in.
    """
    global _file, _looked
    with _look_lock:
        before = os.environ.pop(DIRECTORY_VARIABLE, None)
        if before is not None and _file is not None:
            _left[before] = _file
        if directory is not None:
            os.environ[DIRECTORY_VARIABLE] = directory
        file = _left.pop(directory, None) if directory is not None else None
        _looked = False  # first: no file and having looked would mean that nobody measures
        _file = file
        _looked = file is not None


def leave(directory: str) -> None:
    """The session of a directory that marks no longer go to has ended: what is marked there from now on is dropped."""
    with _look_lock:
        file = _left.pop(directory, None)
    if file is not None:
        file.finish()
        file.retire()


def _forget_in_child() -> None:
    """A forked child writes a file of its own. Phases that its parent opened stay its parent's to close."""
    global _file, _looked, _look_lock
    for file in (_file, *_left.values()):
        if file is not None:
            file.close()
    _left.clear()
    _file = None
    _looked = False
    _look_lock = RLock()


def _at_exit() -> None:
    for file in (_file, *_left.values()):
        if file is not None:
            file.finish()


os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(_at_exit)


def _given_work(samples: object, tokens: object, queries: object, streams: object) -> dict[str, Any]:
    work: dict[str, Any] = {}
    if samples is not None:
        work["samples"] = samples
    if tokens is not None:
        work["tokens"] = tokens
    if queries is not None:
        work["queries"] = queries
    if streams is not None:
        work["streams"] = streams
    return work


def _synchronize_cuda() -> None:
    """Wait for the GPU where the workload itself has started CUDA; nothing is pending anywhere else."""
    try:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception:
        pass  # a failure of the workload's own kernels, which its next call to CUDA will tell it


class phase:
    """A named interval of the workload, as a context manager or a decorator.

        with phase("epoch", index=3, samples=60_000) as p:
            p.add(tokens=seen)  # counts that are known only later add to those given before

    Args:
        name: what the phase is called; phases of one name are summed in reports.
        index: which one of its name.
        samples, tokens, queries, streams: what the phase does, as counts.
        rank: of a distributed job; without it the launcher's (RANK, OMPI_COMM_WORLD_RANK, SLURM_PROCID, PMI_RANK).
        sync: "cuda" waits for the GPU at both edges, if the workload has loaded torch and started CUDA.
        attributes: anything else that is worth keeping; values go to JSON.

    One object marks one phase at a time: write `with phase(...)` anew for each.
    """

    __slots__ = ("_added", "_begin_ns", "_file", "_given", "_name")

    def __init__(
        self,
        name: str,
        *,
        index: int | None = None,
        samples: float | None = None,
        tokens: float | None = None,
        queries: float | None = None,
        streams: float | None = None,
        rank: int | None = None,
        sync: Literal["cuda"] | None = None,
        **attributes: Any,
    ) -> None:
        self._name = name
        self._file: MarkFile | None = None
        if index is samples is tokens is queries is streams is rank is None and sync is None and not attributes:
            self._given: _Given | None = None
        else:
            if sync is not None and sync != "cuda":  # not ours to understand; who reads the phases should see the word
                attributes["sync"] = sync
            self._given = (index, rank, sync == "cuda", _given_work(samples, tokens, queries, streams), attributes)

    @property
    def began_ns(self) -> int | None:
        """The instant of its begin on the monotonic clock; None where nobody measures."""
        return self._begin_ns if self._file is not None else None

    def __enter__(self) -> phase:
        self._file = file = _file
        if file is None:
            if _looked:
                return self
            self._file = file = _look()
            if file is None:
                return self
        self._added: tuple[dict[str, Any], dict[str, Any]] | None = None
        details = b""
        if self._given is not None:
            index, rank, sync, work, attributes = self._given
            if sync:
                _synchronize_cuda()
            details = encode_details(index, rank, work, attributes)
        try:
            name = names[self._name]
        except Exception:
            name = encode_name(self._name)
        self._begin_ns = t_ns = monotonic_ns()  # last: what a mark costs lies before the phase
        line = b'{"op":"begin","name":%b,"thread":%d%b,"t_ns":%d}\n' % (name, get_ident(), details, t_ns)
        try:
            if write(file.fd, line) != len(line):
                file.note_torn()
        except OSError:
            file.write_after_trouble(line)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        file = self._file
        if file is None:
            return
        if self._given is not None and self._given[_SYNC]:
            _synchronize_cuda()
        t_ns = monotonic_ns()  # first: what a mark costs lies after the phase
        details = b""
        if exception_type is not None or self._added is not None:
            work, attributes = self._added or ({}, {})
            error = None if exception_type is None else exception_type.__name__
            details = encode_details(None, None, work, attributes, error)
        try:
            name = names[self._name]
        except Exception:
            name = encode_name(self._name)
        line = b'{"op":"end","name":%b,"begin_ns":%d%b,"t_ns":%d}\n' % (name, self._begin_ns, details, t_ns)
        try:
            if write(file.fd, line) != len(line):
                file.note_torn()
        except OSError:
            file.write_after_trouble(line)

    def add(
        self,
        *,
        samples: float | None = None,
        tokens: float | None = None,
        queries: float | None = None,
        streams: float | None = None,
        **attributes: Any,
    ) -> None:
        """Add counts to the open phase, and attributes: for what is known only when the work is done."""
        if self._file is None:
            return
        if self._added is None:
            self._added = ({} if self._given is None else dict(self._given[3]), {})
        work, kept = self._added
        kept.update(attributes)
        for unit, amount in _given_work(samples, tokens, queries, streams).items():
            try:
                work[unit] = work.get(unit, 0) + amount
            except Exception:
                kept[f"unusable_{unit}"] = amount

    def __call__(self, function: Function) -> Function:
        """Decorate a function or a coroutine function: each call is a phase."""
        from functools import wraps

        def fresh() -> phase:
            again = phase(self._name)
            again._given = self._given
            return again

        if getattr(getattr(function, "__code__", None), "co_flags", 0) & _COROUTINE:

            @wraps(function)
            async def in_phase(*args: Any, **kwargs: Any) -> Any:
                with fresh():
                    return await function(*args, **kwargs)
        else:

            @wraps(function)
            def in_phase(*args: Any, **kwargs: Any) -> Any:
                with fresh():
                    return function(*args, **kwargs)

        return in_phase  # type: ignore[return-value]


_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the cost of importing inspect


def mark(name: str, *, index: int | None = None, rank: int | None = None, **attributes: Any) -> None:
    """Mark an instant: `mark("lr_drop", lr=0.01)`."""
    t_ns = monotonic_ns()
    _put_single(b"point", name, t_ns, index, rank, {}, attributes)


def begin(
    name: str,
    *,
    index: int | None = None,
    samples: float | None = None,
    tokens: float | None = None,
    queries: float | None = None,
    streams: float | None = None,
    rank: int | None = None,
    sync: Literal["cuda"] | None = None,
    t_ns: int | None = None,
    **attributes: Any,
) -> None:
    """Open a phase where `with` does not fit. The same thread closes it with `end` and the same name.

    `t_ns`, of `time.monotonic_ns()`, is when it began if that was at another instant than now.
    """
    if sync is not None:
        _wait(sync, attributes)
    _put_single(b"begin", name, t_ns, index, rank, _given_work(samples, tokens, queries, streams), attributes)


def end(
    name: str,
    *,
    index: int | None = None,
    samples: float | None = None,
    tokens: float | None = None,
    queries: float | None = None,
    streams: float | None = None,
    rank: int | None = None,
    sync: Literal["cuda"] | None = None,
    t_ns: int | None = None,
    **attributes: Any,
) -> None:
    """Close the innermost open phase of this name (and index, if given) in this thread. Counts replace begin's.

    `t_ns`, of `time.monotonic_ns()`, is when it ended if that was at another instant than now.
    """
    if sync is not None:
        _wait(sync, attributes)
    if t_ns is None:
        t_ns = monotonic_ns()
    _put_single(b"end", name, t_ns, index, rank, _given_work(samples, tokens, queries, streams), attributes)


def _wait(sync: object, attributes: dict[str, Any]) -> None:
    """As `phase` does at its edges, for a `begin` or `end` that somebody measures."""
    if sync != "cuda":
        attributes["sync"] = sync
    elif is_measured():
        _synchronize_cuda()


def _put_single(
    op: bytes,
    name: object,
    t_ns: int | None,
    index: object,
    rank: object,
    work: Mapping[str, Any],
    attributes: Mapping[str, Any],
    file: MarkFile | None = None,
) -> None:
    """A line that no `phase` object stands behind. Without `t_ns` it is stamped last."""
    file = file or (_file if _looked else _look())
    if file is not None:
        if t_ns is not None and (type(t_ns) is not int or not 0 <= t_ns < _LATEST_NS):  # what a caller gave
            attributes, t_ns = {**attributes, "unusable_t_ns": t_ns}, None
        details = encode_details(index, rank, work, attributes)
        head = b'{"op":"%b","name":%b,"thread":%d%b' % (op, encode_name(name), get_ident(), details)
        file.put(b'%b,"t_ns":%d}\n' % (head, monotonic_ns() if t_ns is None else t_ns))


def shell_mark(
    op: Literal["begin", "end", "point"],
    name: str,
    index: int | None = None,
    work: Mapping[str, float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> bool:
    """One mark by a process of its own, for shell scripts: such processes share the lane "shell".

    Returns:
        Whether it was written; False where nobody measures (POWER_AGENT_MARKS is not set).

    Raises:
        OSError: the directory or the disk does not take it.
    """
    t_ns = monotonic_ns()
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        return False
    file = MarkFile(directory, lane="shell")
    _put_single(op.encode(), name, t_ns, index, None, work or {}, attributes or {}, file)
    file.close()
    if file.lost:
        raise OSError(f"the mark was not written to {file.path}; is the disk full?")
    return True
