"""One GPU as NVML finds it, and what about it the user should know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from drivers.contract import Unavailable
from drivers.nvml.windows import generation

T = TypeVar("T")


@dataclass(frozen=True)
class Gpu:
    """`gpu3` is NVML index 3: PCI bus order, which is CUDA's order only with CUDA_DEVICE_ORDER=PCI_BUS_ID."""

    index: int
    handle: object
    name: str
    uuid: str
    generation: str  # "" where unknown
    driver_version: tuple[int, ...]  # (535, 104, 5); empty if unknown
    mig: bool
    persistence: bool

    @property
    def device(self) -> str:
        """Its name in the power tree."""
        return f"gpu{self.index}"

    def describe(self, text: str) -> str:
        """A channel's description: what it is, of which GPU."""
        whole = "; the whole GPU, all MIG instances together" if self.mig else ""
        return f"{text}{whole}; {self.name} {self.uuid}"


def find_gpu(nvml: ModuleType, index: int, driver_version: tuple[int, ...]) -> Gpu:
    """Ask NVML for GPU `index`.

    Raises:
        pynvml.NVMLError: NVML does not give access to it. Details that NVML refuses are left empty instead.
    """
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(function: Callable[[object], T], otherwise: T) -> T:
        try:
            return function(handle)
        except nvml.NVMLError:
            return otherwise

    name = ask(nvml.nvmlDeviceGetName, "NVIDIA GPU")
    architecture = ask(nvml.nvmlDeviceGetArchitecture, 0)
    capability = ask(nvml.nvmlDeviceGetCudaComputeCapability, (0, 0))
    return Gpu(
        index=index,
        handle=handle,
        name=name,
        uuid=ask(nvml.nvmlDeviceGetUUID, ""),
        generation=generation(architecture, capability, name),
        driver_version=driver_version,
        mig=ask(nvml.nvmlDeviceGetMigMode, [0, 0])[0] == 1,
        # Where the mode cannot be asked, as in many containers, there is nothing to say about it.
        persistence=ask(nvml.nvmlDeviceGetPersistenceMode, 1) == 1,
    )


def notes_on(gpus: list[Gpu]) -> list[Unavailable]:
    """What limits the figures of these GPUs, and the command that changes it."""
    notes = []
    sliced = [gpu.device for gpu in gpus if gpu.mig]
    if sliced:
        notes.append(
            Unavailable(
                f"MIG is on at {', '.join(sliced)}: power and energy are those of the whole GPU, "
                "all its instances together",
                "leave the other instances idle while you measure, or switch MIG off: sudo nvidia-smi -mig 0",
            )
        )
    forgetful = [gpu.device for gpu in gpus if not gpu.persistence]
    if forgetful:
        notes.append(
            Unavailable(
                f"persistence mode is off at {', '.join(forgetful)}: an idle driver may unload, "
                "which restarts the energy counter",
                "sudo nvidia-smi -pm 1",
            )
        )
    return notes
