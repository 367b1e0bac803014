"""Simulated hardware monitors on disk, laid out as the kernel does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class HwmonTree:
    """Chips under `root`, which stands for / ."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/class/hwmon").mkdir(parents=True)

    def add(
        self, number: int, name: str, device: str, files: Mapping[str, str | int], *, old_style: bool = False
    ) -> Path:
        """Add hwmonN of the device at /sys/devices/`device`; returns the folder of its files.

        Old style: the files lie beside the device's own, as those of the ACPI power meter do.
        """
        device_folder = self.root / "sys/devices" / device
        monitor = device_folder / "hwmon" / f"hwmon{number}"
        monitor.mkdir(parents=True)
        (monitor / "device").symlink_to(os.path.relpath(device_folder, monitor))
        link = self.root / "sys/class/hwmon" / f"hwmon{number}"
        link.symlink_to(os.path.relpath(monitor, link.parent))
        folder = device_folder if old_style else monitor
        (folder / "name").write_text(f"{name}\n")
        for file, content in files.items():
            (folder / file).write_text(f"{content}\n")
        return folder
