"""Discovery with real packages: their metadata and code are written to disk and found as any other package's."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivers.discovery import BUILT_IN, Opened, Refused, open_drivers

Install = Callable[..., None]
EXAMPLE = Path(__file__).parents[2] / "examples/driver_template.py"

DRIVER = """
from drivers.contract import Channel, Driver, Group, Row, Unavailable

class Power(Group):
    name, default_hz, max_hz = "power", 1.0, 1.0
    channels = (Channel(name="{channel}", device="d", quantity="power", unit="W", kind="gauge", scope="{scope}"),)
    def read(self):
        return [Row(0, 0, [1.0])]

class Made(Driver):
    name = "{name}"
    closed = 0
    seen = None
    def __init__(self):
        self.groups = (Power(),)
    @classmethod
    def open(cls, options):
        cls.seen = options
        {action}
        return cls()
    def close(self):
        type(self).closed += 1
"""


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Put a package with one driver where Python finds packages."""
    modules: list[str] = []

    def put(name: str, code: str = "", entry: str = "", **words: str) -> None:
        module = f"third_party_{name.replace('-', '_')}_{len(modules)}"
        text = DRIVER.format(**{"name": name, "channel": f"{name}/d/power", "scope": "rail", "action": "pass"} | words)
        (tmp_path / f"{module}.py").write_text(code or text)
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[power_agent.drivers]\n{name} = {module}:{entry or 'Made'}\n")
        modules.append(module)

    sys.path.insert(0, str(tmp_path))
    yield put
    sys.path.remove(str(tmp_path))
    for module in modules:
        sys.modules.pop(module, None)


def test_an_unknown_name_is_refused_with_the_names_that_exist(install: Install) -> None:
    install("meter")
    known = "Known drivers: " + ", ".join(sorted([*BUILT_IN, "meter"]))
    assert open_drivers(["nvmll", "xyz"]) == [
        Refused(
            "nvmll",
            "there is no driver 'nvmll'",
            f"did you mean 'nvml'? {known}",
        ),
        Refused(
            "xyz",
            "there is no driver 'xyz'",
            known,
        ),
    ]


def test_a_driver_of_another_package_gets_its_settings_and_its_root(install: Install, tmp_path: Path) -> None:
    install("meter")
    (result,) = open_drivers(
        ["meter"], root=tmp_path, settings={"meter": {"port": "7"}, "nvml": {"x": "1"}}, clock_ns=lambda: 5
    )
    assert isinstance(result, Opened)
    assert result.name == "meter"
    options = type(result.driver).seen  # type: ignore[attr-defined]
    assert (options.root, options.settings, options.clock_ns()) == (tmp_path, {"port": "7"}, 5)


@pytest.mark.parametrize(
    ("action", "reason", "fix"),
    [
        ("raise Unavailable('no meter at port 7', 'switch it on')", "no meter at port 7", "switch it on"),
        ("raise ZeroDivisionError('by zero')", "opening it failed: ZeroDivisionError: by zero", "report this"),
    ],
)
def test_a_driver_that_cannot_open_says_why(install: Install, action: str, reason: str, fix: str) -> None:
    install("meter", action=action)
    (result,) = open_drivers(["meter"])
    assert isinstance(result, Refused)
    assert result.reason == reason
    assert result.fix.startswith(fix)


@pytest.mark.parametrize(
    ("code", "entry", "reason"),
    [
        ("import no_such_library", "", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def broken(:", "", "SyntaxError"),
        ("x = 1", "x", "TypeError: 1 is not a subclass of drivers.contract.Driver"),
        ("x = 1", "y", "AttributeError"),
    ],
)
def test_code_that_cannot_be_loaded_costs_only_its_own_driver(
    install: Install, code: str, entry: str, reason: str
) -> None:
    install("broken", code=code, entry=entry)
    install("meter")
    broken, meter = open_drivers(["broken", "meter"])
    assert isinstance(broken, Refused)
    assert reason in broken.reason
    assert isinstance(meter, Opened)


def test_of_two_drivers_with_one_channel_the_later_is_refused_and_closed(install: Install) -> None:
    install("first", channel="meter/d/power")
    install("second", channel="meter/d/power")
    first, second = open_drivers(["first", "second"])
    assert isinstance(first, Opened)
    assert second == Refused(
        "second",
        "its channel meter/d/power is already offered by the driver 'first'",
        "leave out one of the two drivers 'second' and 'first'",
    )
    assert type(first.driver).closed == 0  # type: ignore[attr-defined]
    assert sys.modules["third_party_second_1"].Made.closed == 1


def test_a_driver_cannot_take_a_name_that_is_taken(install: Install) -> None:
    install("replay")
    clash, real = open_drivers(["replay"])
    assert isinstance(clash, Refused)
    assert re.search(r"third_party_replay_0:Made calls its driver 'replay', a name that another", clash.reason)
    assert isinstance(real, Refused)
    assert real.reason == "no trace is named"


def test_several_devices_of_a_kind_have_their_own_names_and_settings(install: Install, tmp_path: Path) -> None:
    install("meter", DRIVER.format(name="meter", channel="{}", scope="wall", action="return cls(options)").replace(
        "def __init__(self):\n        self.groups = (Power(),)",
        "def __init__(self, options):\n        power = Power()\n        power.channels = (Channel(name=f'meter:"
        "{options.instance}/d/power', device='d', quantity='power', unit='W', kind='gauge', scope='wall'),)\n"
        "        self.groups = (power,)\n        self.settings = options.settings",
    ))  # fmt: skip
    settings = {"meter:left": {"address": "a"}, "meter:right": {"address": "b"}}
    results = open_drivers(["meter:left", "meter:right", "meter:no such"], settings=settings)
    opened = [result for result in results if isinstance(result, Opened)]
    assert [(result.name, result.driver.settings) for result in opened] == list(settings.items())  # type: ignore[attr-defined]
    assert [result.name for result in results if isinstance(result, Refused)] == ["meter:no such"]
    by_settings = [result.name for result in open_drivers(None, root=tmp_path, settings=settings) if ":" in result.name]
    assert by_settings == list(settings)


def test_a_name_given_twice_is_opened_once(install: Install) -> None:
    install("meter")
    assert len(open_drivers(["meter", "meter"])) == 1


def machine(root: Path) -> Path:
    """A machine with nothing but CPU time."""
    (root / "proc").mkdir(parents=True)
    (root / "proc/stat").write_text("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    return root


@pytest.mark.parametrize("scope", ["package", "psys", "node", "wall"])
def test_estimate_comes_last_and_yields_to_what_is_measured(install: Install, tmp_path: Path, scope: str) -> None:
    install("meter", scope=scope)
    meter, estimate = open_drivers(["estimate", "meter"], root=machine(tmp_path / "root"))
    assert isinstance(meter, Opened)
    assert estimate == Refused("estimate", f"CPU power is already measured ({scope}); no estimate is needed", "")


def test_estimate_stays_beside_what_does_not_hold_the_packages(install: Install, tmp_path: Path) -> None:
    install("meter", scope="gpu")
    results = open_drivers(["estimate", "meter"], root=machine(tmp_path / "root"))
    assert [(type(result), result.name) for result in results] == [(Opened, "meter"), (Opened, "estimate")]
    for result in results:
        assert isinstance(result, Opened)
        result.driver.close()


def test_without_names_all_are_tried_but_replay_only_with_a_path(install: Install, tmp_path: Path) -> None:
    install("meter")
    root = machine(tmp_path / "root")
    results = open_drivers(None, root=root)
    assert [result.name for result in results] == ["nvml", "rapl", "hwmon", "host", "ipmi", "meter", "estimate"]
    assert {result.name for result in results if isinstance(result, Opened)} >= {"host", "meter"}
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,wall_watts\n0,1\n1,2\n")
    with_path = open_drivers(None, root=root, settings={"replay": {"path": str(trace)}})
    assert "replay" in {result.name for result in with_path if isinstance(result, Opened)}
    for result in results + with_path:
        if isinstance(result, Opened):
            result.driver.close()


def test_the_template_is_a_working_driver(install: Install, tmp_path: Path) -> None:
    code = EXAMPLE.read_text()
    assert len(code.splitlines()) < 60
    install("template", code=code, entry="TemplateDriver")
    (missing,) = open_drivers(["template"], root=tmp_path)
    assert missing == Refused(
        "template", "no battery tells its power in /sys/class/power_supply", "run this on a laptop"
    )
    battery = tmp_path / "sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    (battery / "power_now").write_text("12500000\n")
    ticks = iter([100, 140])
    (result,) = open_drivers(["template"], root=tmp_path, clock_ns=lambda: next(ticks))
    assert isinstance(result, Opened)
    ((t_ns, read_ns, values, statuses),) = result.driver.groups[0].read()
    assert (t_ns, read_ns, values, statuses) == (120, 40, [12.5], None)
    result.driver.close()
