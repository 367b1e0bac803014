"""pytest: the fixture `energy` measures a block of a test, `--measure-energy` all tests. Found through an entry point.

Nothing else is imported and nothing is done where neither is used. docs/measure-in-python.md describes both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from director.commands.values import names
from power_agent.option_values import merged, rate, setting

if TYPE_CHECKING:
    from director.running.measured_block import MeasuredBlock


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; the last three are for the fixture, too."""
    group = parser.getgroup("energy", "power and energy of tests")
    group.addoption("--measure-energy", action="store_true", help="measure every test, and tell the energy of each")
    group.addoption(
        "--energy-output",
        type=Path,
        metavar="DIR",
        help="session directory of --measure-energy (default: ./power-sessions/TIME-pytest)",
    )
    group.addoption("--energy-drivers", type=names, metavar="A,B", help="only these drivers (default: all that work)")
    group.addoption(
        "--energy-rate", type=rate, action="append", default=[], metavar="DRIVER[.GROUP]=HZ", help="readings per second"
    )
    group.addoption(
        "--energy-set", type=setting, action="append", default=[], metavar="DRIVER.KEY=VALUE", help="a driver's setting"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Measure only where somebody asks for it."""
    if config.getoption("--measure-energy") and not config.getoption("collectonly"):
        config.pluginmanager.register(_EveryTest(config), "director.every_test")


@pytest.fixture
def energy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MeasuredBlock]:
    """`with energy() as m:` measures a block of this test; the arguments are those of `director.measure`."""

    def measured(label: str = "", **options: Any) -> MeasuredBlock:
        from director import measure

        options = {"output": tmp_path_factory.mktemp("energy"), **_options(request.config), **options}
        return measure(label or request.node.name, separate=True, **options)

    return measured


class _EveryTest:
    """One session with all tests as its blocks."""

    def __init__(self, config: pytest.Config) -> None:
        self._whole: MeasuredBlock | None = None
        self._tests: list[MeasuredBlock] = []
        # Tests of several processes run at the same time, and nobody can tell whose energy it is.
        self._distributed = hasattr(config, "workerinput") or bool(getattr(config.option, "numprocesses", None))
        self._config = config
        if not self._distributed:
            from director import measure

            try:
                output = config.getoption("--energy-output")
                self._whole = measure("pytest", output=output, separate=True, **_options(config))
            except ValueError as error:
                raise pytest.UsageError(f"--measure-energy: {error}") from None

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self) -> Generator[None]:
        """Measure while the tests run."""
        if self._whole is None:
            yield
            return
        try:
            self._whole.__enter__()
        except ValueError as error:
            raise pytest.UsageError(f"--measure-energy: {error}") from None
        yield
        self._whole.__exit__(None, None, None)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Measure one test, without its fixtures."""
        if self._whole is None:
            yield
            return
        from director import measure

        with measure(item.nodeid) as test:
            yield
        self._tests.append(test)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell the energy of each test."""
        if hasattr(self._config, "workerinput"):
            return
        write = terminalreporter.write_line
        terminalreporter.section("energy of each test")
        if self._whole is None:
            write("not measured: with -n tests share the time, and nobody can tell whose energy it is")
            return
        for line in _table(self._tests):
            write(line)
        write(f"all, with fixtures: {str(self._whole).removeprefix('pytest: ')}")
        for warning in self._whole.summary.warnings if self._whole.summary is not None else []:
            write(f"warning: {warning}")
        write(f"± is the expanded uncertainty U, k = 2. Session: {self._whole.session}")


def _table(tests: list[MeasuredBlock]) -> list[str]:
    from director.answers.number_text import duration_text, figure_text, watts_text

    rows = [("energy ± U", "mean W", "duration", "test")]
    for test in tests:
        told = "not measured" if test.joules is None else figure_text(test.joules, test.expanded_joules, "J")
        told += " ESTIMATE" if test.estimate else ""
        rows.append((told, watts_text(test.mean_watts), duration_text(test.duration_s or 0.0), test.label))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(c.rjust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows]


def _options(config: pytest.Config) -> dict[str, Any]:
    return {
        "drivers": config.getoption("--energy-drivers"),
        "rates_hz": dict(config.getoption("--energy-rate")),
        "settings": merged(config.getoption("--energy-set")),
    }
