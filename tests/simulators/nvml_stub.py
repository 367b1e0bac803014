"""Simulated NVIDIA GPUs behind a real libnvidia-ml.so.1: builds nvml_stub.c and describes what it shall be.

In another process: start it with `environment(library, config)`. In this process: `load(library)`, then put
NVML_STUB_CONFIG into os.environ. In both, pynvml itself is untouched, and writing the configuration again changes the
GPUs while they are read.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

CONFIG_VARIABLE = "NVML_STUB_CONFIG"
SOURCE = Path(__file__).with_suffix(".c")
HEADER = SOURCE.with_name("nvml_stub_gpus.h")
LIBRARY_NAME = "libnvidia-ml.so.1"


@dataclass
class StubGpu:
    """One GPU. The defaults are an H100 with a modern driver at a constant 300 W."""

    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = ""  # empty: made from the index
    architecture: int = 9
    compute_capability: tuple[int, int] = (9, 0)
    persistence: bool = True
    mig: bool = False

    # Power over CLOCK_MONOTONIC t: constant high_w; square, high_w for the first `duty` of each period_s;
    # step, low_w before step_at_s and high_w from then on.
    waveform: Literal["constant", "square", "step"] = "constant"
    low_w: float = 100.0
    high_w: float = 300.0
    period_s: float = 1.0
    duty: float = 0.5
    step_at_s: float = 0.0
    update_s: float = 0.1  # readings change at multiples of this; 0: always
    average_window_s: float = 1.0
    instant_window_s: float = 0.025
    energy_step_s: float = 0.1  # the counter changes at multiples of this; 0: always
    energy_offset_mj: int = 0
    energy_gain: float = 1.0  # of the counter against the power
    module_extra_w: float = 0.0  # 0: the module scope is not supported
    memory_fraction: float = 0.0  # 0: the memory scope is not supported
    power_override_mw: float = float("nan")  # every power reading says this, as a signed integer
    power_value_type: int = 1  # the nvmlValueType_t of the power fields; 7 and more are not in nvml.h

    temperature_c: int = 55
    memory_temperature_c: int = 62
    sm_mhz: int = 1980
    memory_mhz: int = 2619
    utilization: int = 98
    memory_utilization: int = 40
    fan: int = 30
    limit_mw: int = 700_000
    clocks_event_reasons: int = 4
    performance_state: int = 0
    throttled_fraction: float = 0.25  # of the time since instant 0, in every violation counter
    first_slowdown_field: int = 269  # 251 with drivers before 580.82

    hang_s: float = 0.0  # every call on this GPU takes this long
    returns: dict[str, int] = field(default_factory=dict)
    """nvmlReturn codes by what they answer: "all", a field "185", a power field and scope "186.0", or a call: fields,
    power, energy, limit, fan, performance_state, event_reasons, throttle_reasons, architecture, persistence,
    utilization, memory, capability, mig, temperature, temperature_v, sm_clock, memory_clock, name, uuid, handle."""

    def lines(self, index: int) -> list[str]:
        """The key=value lines of GPU `index`."""
        lines = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "returns":
                lines += [f"gpu{index}.return.{what}={code}" for what, code in value.items()]
            elif item.name == "compute_capability":
                lines += [f"gpu{index}.capability_major={value[0]}", f"gpu{index}.capability_minor={value[1]}"]
            elif item.name == "uuid":
                lines.append(f"gpu{index}.uuid={value or f'GPU-{index:08d}-0000-0000-0000-000000000000'}")
            else:
                lines.append(f"gpu{index}.{item.name}={int(value) if isinstance(value, bool) else value}")
        return lines


@dataclass
class StubConfig:
    """What the library shall be."""

    gpus: list[StubGpu] = field(default_factory=lambda: [StubGpu()])
    driver_version: str = "580.95.05"
    init_return: int = 0  # the nvmlReturn of nvmlInit
    reload_ms: float = 0.0  # look for a changed file no more often than this; 0: at each call
    now_s: float | None = None  # stop the stub's clock at this CLOCK_MONOTONIC instant; None: it runs

    def write(self, path: Path) -> None:
        """Put this in force: replaces the file in one step, with a modification time that differs each time."""
        lines = [
            f"gpus={len(self.gpus)}",
            f"driver_version={self.driver_version}",
            f"init_return={self.init_return}",
            f"reload_ms={self.reload_ms}",
            f"now_s={'nan' if self.now_s is None else self.now_s}",
        ]
        for index, gpu in enumerate(self.gpus):
            lines += gpu.lines(index)
        new = path.with_name(path.name + ".new")
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")
        stamp_ns = time.time_ns()
        os.utime(new, ns=(stamp_ns, stamp_ns))
        new.replace(path)


def compiler() -> str | None:
    """The C compiler that `build` needs, or None where there is none."""
    return shutil.which("gcc") or shutil.which("cc")


def build(directory: Path) -> Path:
    """Compile the library into a folder of `directory`, or find it there. Returns the path of libnvidia-ml.so.1."""
    digest = hashlib.sha256(SOURCE.read_bytes() + HEADER.read_bytes() + sys.platform.encode()).hexdigest()[:16]
    library = directory / f"nvml-stub-{digest}" / LIBRARY_NAME
    if library.exists():
        return library
    found = compiler()
    if found is None:
        raise FileNotFoundError("no C compiler: install gcc to build the NVML stub")
    library.parent.mkdir(parents=True, exist_ok=True)
    new = library.with_name(f"{LIBRARY_NAME}.{os.getpid()}")
    options = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY_NAME}"]
    subprocess.run([found, *options, "-o", str(new), str(SOURCE), "-lm", "-lpthread"], check=True)
    new.replace(library)
    return library


def environment(library: Path, config: Path) -> dict[str, str]:
    """Variables for a process that shall find the stub as its NVML."""
    return {"LD_LIBRARY_PATH": str(library.parent), CONFIG_VARIABLE: str(config)}


def load(library: Path) -> ctypes.CDLL:
    """Load the stub into this process, so that pynvml finds it by its name (the loader keeps one library a soname)."""
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
