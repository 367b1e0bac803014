"""How the NVML driver opens, and what it says where it cannot or only in part."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nvml_stub
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvml_helpers import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    VERSION_MISMATCH,
    Opener,
    channel,
    group,
    names,
)
from nvml_stub import StubConfig, StubGpu

from drivers.contract import DriverOptions, Unavailable
from drivers.nvml.driver import NvmlDriver


def test_mig_and_persistence_are_noted(open_stub: Opener) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(mig=True), StubGpu(persistence=False)]))
    whole, forgetful = driver.notes
    assert "gpu0" in whole.reason
    assert "whole GPU" in whole.reason
    assert "whole GPU" in channel(driver, "nvml/gpu0/energy").description
    assert "gpu1" in forgetful.reason
    assert forgetful.fix == "sudo nvidia-smi -pm 1"


def test_a_gpu_that_cannot_be_used_is_noted_and_the_others_are_read(open_stub: Opener, root: Path) -> None:
    (root / "dev").mkdir()
    (root / "dev/nvidia1").touch()
    refusing = StubGpu(returns={"handle": NO_PERMISSION})
    mute = StubGpu(name="NVIDIA T400", returns=dict.fromkeys(["185", "186", "power"], NOT_SUPPORTED))
    driver = open_stub(StubConfig(gpus=[StubGpu(), refusing, mute]))
    assert {name.split("/")[1] for name in names(driver, "power")} == {"gpu0"}
    refused, silent = driver.notes
    assert "gpu1 cannot be used: Insufficient Permissions" in refused.reason
    assert "/dev/nvidia1" in refused.fix
    assert "gpu2 (NVIDIA T400) gives no power reading" in silent.reason
    assert "nvmlDeviceGetPowerUsage: nvmlReturn 3" in silent.reason


def refusal(open_stub: Opener, config: StubConfig) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        open_stub(config)
    return caught.value


def test_missing_library_says_so_and_how_a_container_gets_it(open_stub: Opener, root: Path, nvml_config: Path) -> None:
    missing = StubConfig(init_return=12)
    assert "libnvidia-ml.so.1" in refusal(open_stub, missing).reason
    assert "install the NVIDIA driver" in refusal(open_stub, missing).fix

    (root / ".dockerenv").touch()
    assert "--gpus all" in refusal(open_stub, missing).fix
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in refusal(open_stub, missing).fix
    (root / ".dockerenv").unlink()

    (root / "run").mkdir()
    (root / "run/.containerenv").touch()
    assert "--gpus all" in refusal(open_stub, StubConfig(init_return=DRIVER_NOT_LOADED)).fix

    os.environ["KUBERNETES_SERVICE_HOST"] = "10.0.0.1"  # nvml_config takes it away again
    assert "nvidia.com/gpu" in refusal(open_stub, missing).fix


def test_version_mismatch_names_the_loaded_module(open_stub: Opener, root: Path) -> None:
    mismatch = StubConfig(init_return=VERSION_MISMATCH)
    assert "reboot" in refusal(open_stub, mismatch).fix
    path = root / "proc/driver/nvidia/version"
    path.parent.mkdir(parents=True)
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n")
    assert "(535.104.05)" in refusal(open_stub, mismatch).reason
    (root / ".dockerenv").touch()
    assert "restart this container" in refusal(open_stub, mismatch).fix


def test_no_permission_names_the_device_files(open_stub: Opener, root: Path) -> None:
    refused = StubConfig(init_return=NO_PERMISSION)
    assert "no /dev/nvidia* files" in refusal(open_stub, refused).fix
    (root / "dev").mkdir()
    (root / "dev/nvidiactl").touch()
    (root / "dev/nvidia0").touch()
    assert "/dev/nvidia0 /dev/nvidiactl" in refusal(open_stub, refused).fix


def test_other_failures_are_told_in_nvmls_words(open_stub: Opener) -> None:
    assert "Unknown Error" in refusal(open_stub, StubConfig(init_return=999)).reason
    assert "nvidia-smi" in refusal(open_stub, StubConfig(gpus=[])).fix
    assert "no GPU" in refusal(open_stub, StubConfig(gpus=[])).reason
    lost = StubConfig(gpus=[StubGpu(returns={"all": GPU_IS_LOST})])
    assert "gpu0 cannot be used: GPU is lost" in refusal(open_stub, lost).reason


def test_a_refused_open_leaves_nvml_shut_down(open_stub: Opener) -> None:
    import pynvml

    refusal(open_stub, StubConfig(gpus=[]))
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlShutdown()


@settings(max_examples=60, deadline=None)
@given(version=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30), module=st.binary(max_size=200))
def test_no_version_text_stops_the_driver(nvml_library: Path, version: str, module: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "proc/driver/nvidia/version"
        path.parent.mkdir(parents=True)
        path.write_bytes(module)
        os.environ[nvml_stub.CONFIG_VARIABLE] = str(root / "nvml.conf")
        try:
            StubConfig(driver_version=version).write(root / "nvml.conf")
            driver = NvmlDriver.open(DriverOptions(root=root))
            (row,) = group(driver, "power").read()
            driver.close()
            assert row.statuses is None
            StubConfig(init_return=VERSION_MISMATCH).write(root / "nvml.conf")
            with pytest.raises(Unavailable, match="differ in version"):
                NvmlDriver.open(DriverOptions(root=root))
        finally:
            del os.environ[nvml_stub.CONFIG_VARIABLE]


def run_python(code: str, environment: dict[str, str]) -> str:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_process_finds_the_library_as_it_would_a_real_one(nvml_library: Path, tmp_path: Path) -> None:
    StubConfig(gpus=[StubGpu(), StubGpu()]).write(tmp_path / "nvml.conf")
    code = """
from drivers.discovery import open_drivers
(opened,) = open_drivers(["nvml"])
for group in opened.driver.groups:
    (row,) = group.read()
    print(group.name, len(row.values), row.statuses)
opened.driver.close()
"""
    told = run_python(code, nvml_stub.environment(nvml_library, tmp_path / "nvml.conf"))
    assert told.splitlines() == ["power 4 None", "energy 2 None", "thermal 42 None"]


def test_importing_the_driver_loads_neither_binding_nor_numpy() -> None:
    code = "import sys, drivers.nvml.driver; print([name for name in ('pynvml', 'numpy') if name in sys.modules])"
    assert run_python(code, {}).strip() == "[]"


def test_without_the_binding_the_fix_is_to_install_it() -> None:
    code = """
import sys
sys.modules["pynvml"] = None  # as Python itself marks a module that cannot be imported
from drivers.discovery import open_drivers
(refused,) = open_drivers(["nvml"])
print(refused.fix)
"""
    assert run_python(code, {}).strip() == "pip install nvidia-ml-py"
