"""What a result depends on besides the job: the machine and the settings it ran with, as text for the reader."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

# Only these are kept: an environment may hold secrets.
RESULT_CHANGING = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "SLURM_JOB_ID",
    "SLURM_NTASKS",
    "SLURM_CPUS_PER_TASK",
)


def result_changing(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change speed or power, of those that are set."""
    return {name: as_text(environment[name]) for name in RESULT_CHANGING if name in environment}


def as_text(from_system: str) -> str:
    """What came from the system as bytes that are no UTF-8, such as an old file name, with those as \\xNN."""
    return os.fsencode(from_system).decode("utf-8", "backslashreplace")


def describe_host(root: Path = Path("/")) -> dict[str, str]:
    """Kernel, processor, memory, governor and so on; what cannot be found is left out."""
    facts = {
        "os": _field(root / "etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _field(root / "proc/cpuinfo", r"^model name\s*:\s*(.*)$"),
        "logical_cpus": str(os.cpu_count() or ""),
        "usable_cpus": str(len(os.sched_getaffinity(0))),
        "memory": _field(root / "proc/meminfo", r"^MemTotal:\s*(.*)$"),
        "governor": _field(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", r"^(.*)$"),
        "turbo_off": _field(root / "sys/devices/system/cpu/intel_pstate/no_turbo", r"^(.*)$"),
        "nvidia_driver": _field(root / "proc/driver/nvidia/version", r"^NVRM version:\s*(.*)$"),
        "python": platform.python_version(),
    }
    return {name: text for name, text in facts.items() if text}


def boot_id(root: Path = Path("/")) -> str:
    """Identifies this boot of this machine; empty where the kernel does not say."""
    return _field(root / "proc/sys/kernel/random/boot_id", r"^(.*)$")


def _field(path: Path, pattern: str) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = re.search(pattern, file.read(1 << 16), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1).strip() if found else ""
