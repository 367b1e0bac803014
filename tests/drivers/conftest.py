"""Fixtures for the simulated NVML, which says that there is no driver while none of them is in use, and for meters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nvml_stub
import pytest
from meter_wire import Faults, PtyMeter, TcpMeter
from nvml_stub import StubConfig

from drivers.contract import DriverOptions
from drivers.nvml.driver import NvmlDriver


@pytest.fixture(scope="session")
def nvml_library(request: pytest.FixtureRequest) -> Path:
    """The stub, built once and loaded into this process."""
    if nvml_stub.compiler() is None:
        pytest.skip("gcc is needed to build the NVML stub")
    assert request.config.cache is not None
    built = nvml_stub.build(request.config.cache.mkdir("nvml-stub"))
    nvml_stub.load(built)
    return built


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's file system that has nothing of interest."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def nvml_config(nvml_library: Path, tmp_path: Path) -> Iterator[Path]:
    """The stub is in force while a test runs; outside of one it says that there is no NVIDIA driver."""
    path = tmp_path / "nvml.conf"
    kept = {name: os.environ.pop(name, None) for name in (nvml_stub.CONFIG_VARIABLE, "KUBERNETES_SERVICE_HOST")}
    os.environ[nvml_stub.CONFIG_VARIABLE] = str(path)
    yield path
    for name, value in kept.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def open_stub(nvml_config: Path, root: Path) -> Iterator[Callable[..., NvmlDriver]]:
    drivers: list[NvmlDriver] = []

    def open_driver(config: StubConfig, **options: object) -> NvmlDriver:
        config.write(nvml_config)
        drivers.append(NvmlDriver.open(DriverOptions(root=root, **options)))  # type: ignore[arg-type]
        return drivers[-1]

    yield open_driver
    for driver in drivers:
        driver.close()


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PtyMeter | TcpMeter]]:
    """Plugs simulated meters in; what drivers keep of them lies under the test's own directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    lines: list[PtyMeter | TcpMeter] = []

    def plug_in(meter: Any, faults: Faults | None = None, tcp: bool = False, **line: int) -> PtyMeter | TcpMeter:
        lines.append(TcpMeter(meter, faults) if tcp else PtyMeter(meter, tmp_path / f"tty{len(lines)}", faults, **line))
        return lines[-1]

    yield plug_in
    for line in lines:
        line.close()
