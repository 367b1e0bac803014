"""What this machine is, as text for the reader of a report."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


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
