"""What a result depends on besides the job and the machine: the settings it ran with, as text for the reader."""

from __future__ import annotations

from collections.abc import Mapping

from power_agent.host_facts import as_text

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
