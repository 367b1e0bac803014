"""What lies under a path: MLPerf Training benchmark folders and MLPerf Inference sessions.

Layouts (mlcommons/policies, submission rules):
    Training:  <submitter>/results/<system>/<benchmark>/result_*.txt, power/<run>/{node,sw}_*.txt
    Inference: <submitter>/results/<system>/<benchmark>/<scenario>/performance/{power,ranging,run_1}/
Any folder of these may be given, and folders that lack some of the levels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ROUND = re.compile(
    r"(?:^|(?:training|inference|mlperf|results?)[_-]?)v?(\d+\.\d)(?:\.\d+)?(?:-(?:main|master|[0-9a-f]{7,40}))?$",
    re.IGNORECASE,
)
_SCENARIOS = ("offline", "server", "singlestream", "multistream", "interactive")
_NO_NAMES = ("results", "closed", "open", "network", "strong", "weak", "performance")  # levels that name nothing
_NOT_ENTERED = (".git", "__pycache__", "node_modules")


@dataclass(frozen=True)
class TrainingBenchmark:
    """A folder of `result_*.txt`. Names come from the folders above it; "" where there is none."""

    path: Path
    submitter: str
    system: str
    benchmark: str
    round: str  # "4.0"; "" where no folder names one
    result_files: tuple[Path, ...]  # sorted by name
    has_power: bool  # a folder `power` stands beside the result files

    def power_dir(self, result_file: Path) -> Path:
        """Where the power logs of a run lie, if it has any: `power/<result file's name up to its first dot>`."""
        return self.path / "power" / result_file.name.split(".")[0]


@dataclass(frozen=True)
class InferenceSession:
    """A folder with `run_1` and `power` of one power measurement. Names are "" where no folder is a scenario's."""

    path: Path
    submitter: str
    system: str
    benchmark: str
    scenario: str  # as the folder is named
    round: str  # "4.1"; "" where no folder names one


@dataclass(frozen=True)
class Unreadable:
    """A folder or link that was not searched, and why."""

    path: Path
    why: str


Found = TrainingBenchmark | InferenceSession | Unreadable


def find(paths: Iterable[Path]) -> Iterator[Found]:
    """Yield what lies under the paths, in order of names. Memory grows with links and depth only.

    A link to a folder is followed once, unless its target lies under a searched folder or holds one.
    """
    roots: list[Path] = []
    for path in paths:
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
            yield Unreadable(path, _why(error))
            continue
        if any(real == root or root in real.parents for root in roots):
            continue  # given twice
        roots.append(real)
        if not real.is_dir():
            yield Unreadable(path, "is a file; give the folder that it lies in")
            continue
        yield from _walk(path, roots)


def _walk(top: Path, roots: list[Path]) -> Iterator[Found]:
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                folders, links, results = [], [], []
                for entry in listing:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_symlink() and _leads_to_folder(entry):
                        links.append(entry.name)
                    elif entry.name.startswith("result_") and entry.name.endswith(".txt"):
                        results.append(entry.name)
        except OSError as error:
            yield Unreadable(folder, _why(error))
            continue
        names = {*folders, *links}
        if _is_session(folder, names):
            yield _session(folder)
            continue
        if results:
            yield _benchmark(folder, sorted(results), "power" in names)
            names.discard("power")
        for name in sorted(names.difference(_NOT_ENTERED), reverse=True):
            if name not in links:
                waiting.append(folder / name)
                continue
            try:
                target = (folder / name).resolve(strict=True)
            except (OSError, RuntimeError) as error:
                yield Unreadable(folder / name, _why(error))
                continue
            if not any(target == root or root in target.parents or target in root.parents for root in roots):
                roots.append(target)
                waiting.append(folder / name)


def _leads_to_folder(link: os.DirEntry[str]) -> bool:
    """Also where the link leads in a circle: who follows it finds out, and says so."""
    try:
        return link.is_dir()
    except OSError:
        return True


def _why(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _is_session(folder: Path, names: set[str]) -> bool:
    if "run_1" not in names:
        return False
    run, power = folder / "run_1", folder / "power"
    marks = (run / "spl.txt", run / "spl_analyzer_1.txt", power / "server.json", power / "client.json")
    return any(os.path.lexists(mark) for mark in marks)


def _benchmark(folder: Path, results: list[str], has_power: bool) -> TrainingBenchmark:
    parts = _parts(folder)
    submitter, system, benchmark = ["", "", "", *(part for part in parts if part not in _NO_NAMES)][-3:]
    files = tuple(folder / name for name in results)
    return TrainingBenchmark(folder, submitter, system, benchmark, _round(parts), files, has_power)


def _session(folder: Path) -> InferenceSession:
    parts = _parts(folder)
    scenario = next((at for at in reversed(range(len(parts))) if parts[at].lower() in _SCENARIOS), -1)
    above = [part for part in parts[: scenario + 1] if part not in _NO_NAMES]
    submitter, system, benchmark, name = ["", "", "", "", *above][-4:]
    return InferenceSession(folder, submitter, system, benchmark, name, _round(parts))


def _parts(folder: Path) -> tuple[str, ...]:
    return folder.resolve().parts[1:]


def _round(parts: tuple[str, ...]) -> str:
    """The round that the nearest folder names, such as training_results_v4.0; versions of other things do not count."""
    for part in reversed(parts):
        match = _ROUND.search(part)
        if match:
            return match[1]
    return ""
