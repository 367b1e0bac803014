"""NVIDIA GPUs through NVML: power, the energy counter, and what shows how hot and how fast they run.

See docs/devices/nvml.md for what the figures mean.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import ModuleType

from drivers.contract import Driver, DriverOptions, Unavailable
from drivers.nvml.gpu import Gpu, find_gpu, notes_on
from drivers.nvml.power import energy_sources, power_sources
from drivers.nvml.read import NvmlGroup, Source
from drivers.nvml.thermal import thermal_sources

# nvmlReturn_t
_NO_PERMISSION, _DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND, _VERSION_MISMATCH = 4, 9, 12, 18

_SEE_NVIDIA_SMI = "see whether nvidia-smi works; if not, reboot"


class NvmlDriver(Driver):
    """All GPUs that NVML finds. CUDA_VISIBLE_DEVICES is not asked: power is drawn by every GPU."""

    name = "nvml"

    def __init__(self, nvml: ModuleType, groups: tuple[NvmlGroup, ...], notes: tuple[Unavailable, ...]) -> None:
        self._nvml = nvml
        self.groups = groups
        self.notes = notes

    @classmethod
    def open(cls, options: DriverOptions) -> NvmlDriver:
        """Load NVML and ask every GPU what it offers.

        Raises:
            Unavailable: no binding, no library, no driver, no permission, or no GPU that answers.
        """
        try:
            import pynvml
        except ImportError as error:
            raise Unavailable("the Python package nvidia-ml-py is not installed", "pip install nvidia-ml-py") from error
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise _cannot_start(error.value, str(error), options.root) from error
        try:
            return cls._ask_gpus(pynvml, options)
        except BaseException as error:
            cls._shut_down(pynvml)
            if isinstance(error, pynvml.NVMLError):
                raise Unavailable(f"NVML fails: {error}", _SEE_NVIDIA_SMI) from error
            raise

    @classmethod
    def _ask_gpus(cls, nvml: ModuleType, options: DriverOptions) -> NvmlDriver:
        driver_version = _parse_version(nvml.nvmlSystemGetDriverVersion())
        gpus: list[Gpu] = []
        notes: list[Unavailable] = []
        count = nvml.nvmlDeviceGetCount()
        for index in range(count):
            try:
                gpus.append(find_gpu(nvml, index, driver_version))
            except nvml.NVMLError as error:
                notes.append(_cannot_use(index, error.value, str(error), options.root))
        if not gpus:
            if notes:
                raise Unavailable("; ".join(note.reason for note in notes), notes[0].fix)
            raise Unavailable("NVML finds no GPU", _give_gpus(options.root) or "see whether nvidia-smi -L lists one")
        return cls._offer(nvml, gpus, notes, options)

    @classmethod
    def _offer(cls, nvml: ModuleType, gpus: list[Gpu], notes: list[Unavailable], options: DriverOptions) -> NvmlDriver:
        power: list[Source] = []
        energy: list[Source] = []
        thermal: list[Source] = []
        modules: list[str] = []
        for gpu in gpus:
            of_gpu, told = power_sources(nvml, gpu)
            if not of_gpu:
                reason = f"{gpu.device} ({gpu.name}) gives no power reading: {told}"
                notes.append(Unavailable(reason, "measure this GPU from outside: a node sensor or a wall meter"))
            power += of_gpu
            module = _module(of_gpu)
            modules += [module] if module else []
            energy += energy_sources(nvml, gpu, parent=module)
            thermal += thermal_sources(nvml, gpu)
        notes += notes_on(gpus) + _note_on_modules(modules, gpus)
        groups = (
            NvmlGroup("power", power, 20, 1000, options.clock_ns),
            # Reading the counter faster than this was seen to make it count less (docs/devices/nvml.md).
            NvmlGroup("energy", energy, 1, 1, options.clock_ns),
            NvmlGroup("thermal", thermal, 1, 10, options.clock_ns),
        )
        offered = tuple(group for group in groups if group.channels)
        if not offered:
            raise Unavailable("; ".join(note.reason for note in notes), notes[0].fix)
        return cls(nvml, offered, tuple(notes))

    def close(self) -> None:
        """Leave NVML."""
        self._shut_down(self._nvml)

    @staticmethod
    def _shut_down(nvml: ModuleType) -> None:
        with contextlib.suppress(nvml.NVMLError):  # the driver may be gone: then there is nothing left to leave
            nvml.nvmlShutdown()


def _parse_version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _module(sources: list[Source]) -> str | None:
    """The module that contains the GPU with these power sources, where NVML has a reading of it."""
    channels = (channel for source in sources for channel in source.channels)
    return next((channel.device for channel in channels if channel.scope == "module"), None)


def _note_on_modules(modules: list[str], gpus: list[Gpu]) -> list[Unavailable]:
    if len(modules) < 2 or all(gpu.generation == "grace-hopper" for gpu in gpus):
        return []
    reason = f"{', '.join(modules)}: NVML does not say whether these are one module seen from several GPUs"
    return [Unavailable(reason, "where their readings are always equal, count the power of one of them only")]


def _cannot_start(code: int, text: str, root: Path) -> Unavailable:
    if code == _LIBRARY_NOT_FOUND:
        fix = _give_gpus(root) or "install the NVIDIA driver; a machine without an NVIDIA GPU needs nothing"
        return Unavailable("libnvidia-ml.so.1 is not found: there is no NVIDIA driver here", fix)
    if code == _DRIVER_NOT_LOADED:
        fix = _give_gpus(root) or "sudo modprobe nvidia, then see whether nvidia-smi works"
        return Unavailable("the NVIDIA kernel driver is not loaded", fix)
    if code == _VERSION_MISMATCH:
        loaded = _loaded_module_version(root)
        fix = "reboot, or unload and load the kernel module: sudo rmmod nvidia_uvm nvidia && sudo modprobe nvidia"
        if _container(root):
            fix = f"restart this container, so that it gets the host's present driver library; on the host: {fix}"
        return Unavailable(f"the NVIDIA library and the loaded kernel module{loaded} differ in version", fix)
    if code == _NO_PERMISSION:
        return Unavailable("NVML may not be used by this user", _open_device_files(root))
    return Unavailable(f"NVML does not start: {text}", _SEE_NVIDIA_SMI)


def _cannot_use(index: int, code: int, text: str, root: Path) -> Unavailable:
    lost = "sudo dmesg | grep -i xid says why; reset it with sudo nvidia-smi -r, or reboot"
    fix = _open_device_files(root) if code == _NO_PERMISSION else lost
    return Unavailable(f"gpu{index} cannot be used: {text}", fix)


def _open_device_files(root: Path) -> str:
    files = sorted((root / "dev").glob("nvidia*"))
    closed = [file for file in files if not os.access(file, os.R_OK | os.W_OK)] or files
    if not closed:
        return "there are no /dev/nvidia* files here: run nvidia-smi once as root, or pass them into the container"
    names = " ".join(f"/dev/{file.name}" for file in closed)
    return f"ask for read and write access to {names}: see their group with ls -l, then sudo usermod -aG GROUP $USER"


def _loaded_module_version(root: Path) -> str:
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    versions = (word for word in text.split() if _parse_version(word) and "." in word)
    version = next(versions, "")
    return f" ({version})" if version else ""


def _container(root: Path) -> str:
    """Which kind of container this is; empty on a host."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return "docker"
    return ""


def _give_gpus(root: Path) -> str:
    """What gives this container its GPUs; empty on a host."""
    variable = "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    return {
        "kubernetes": f"ask for GPUs in the pod's resources (nvidia.com/gpu: 1) and set {variable}",
        "docker": f"start the container with --gpus all -e {variable}",
        "": "",
    }[_container(root)]
