"""The packages import one way, drivers <- power_agent <- director, and nothing heavy before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "drivers": {"drivers"},
    "power_agent": {"drivers", "power_agent"},
    "director": {"drivers", "power_agent", "director"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks", "examples"}
# Of the sampling process and of what a workload imports, which have the machine's memory and start-up to spare.
HEAVY = {"matplotlib", "numpy", "pandas", "pyarrow", "torch"}
LIGHT = ("power_agent", "power_agent.cli", "power_agent.sampler", "director.cli", "drivers.discovery")


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and module of every import, at the top or inside of a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def upward(package: str, source: str) -> list[str]:
    """Imports of a package that it may not import, and relative ones, which hide where they lead."""
    found = ((line, module, module.split(".")[0]) for line, module in imported(source))
    return [f"{line}: {module}" for line, module, top in found if not top or top in OURS - MAY_IMPORT[package]]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(ROOT)): upward(package, file.read_text()) for file in files}
    assert {file: lines for file, lines in wrong.items() if lines} == {}


def test_an_upward_import_is_found() -> None:
    assert upward("drivers", "def f():\n    from power_agent.clock import now\n") == ["2: power_agent.clock"]
    assert upward("power_agent", "import director.cli as cli, os") == ["1: director.cli"]
    assert upward("director", "from . import cli\nfrom tests import x") == ["1: .", "2: tests"]
    assert upward("director", "import drivers, power_agent.clock\nfrom director.cli import main") == []


def test_a_driver_imports_no_other() -> None:
    """A kind of device stands alone: what several share lies in `drivers` itself."""
    kinds = {folder.name for folder in (ROOT / "drivers").iterdir() if (folder / "__init__.py").exists()}
    for kind in kinds:
        for file in (ROOT / "drivers" / kind).rglob("*.py"):
            for line, module in imported(file.read_text()):
                other = module.split(".")[1] if module.startswith("drivers.") else kind
                assert other == kind or other not in kinds, f"{file}:{line} imports {module}"


@pytest.mark.parametrize("module", LIGHT)
def test_nothing_heavy_is_loaded_early(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} & HEAVY == set()
