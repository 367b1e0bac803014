"""Fixtures for the simulated NVML. While none of them is in use, the stub says that there is no NVIDIA driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import nvml_stub
import pytest
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
