"""Update periods and windows against the published table, row by row."""

from __future__ import annotations

import pytest

from drivers.nvml.windows import Window, generation, power_window


@pytest.mark.parametrize(
    ("architecture", "capability", "name", "branch", "reading", "expected"),
    [
        (7, (8, 0), "NVIDIA A100-SXM4-80GB", 550, "instant", Window(0.1, 0.025)),
        (7, (8, 0), "NVIDIA A100-SXM4-80GB", 470, "legacy", Window(0.1, 0.025)),
        (7, (8, 0), "NVIDIA A100-SXM4-80GB", 550, "average", Window(None, None)),
        (7, (8, 6), "NVIDIA GeForce RTX 3090", 525, "legacy", Window(0.1, 1.0)),
        (7, (8, 6), "NVIDIA GeForce RTX 3090", 530, "legacy", Window(0.1, 0.1)),
        (8, (8, 9), "NVIDIA L40S", 535, "legacy", Window(0.1, 1.0)),
        (8, (8, 9), "NVIDIA L40S", 535, "average", Window(0.1, 1.0)),
        (8, (8, 9), "NVIDIA L40S", 535, "instant", Window(0.1, 0.1)),
        (8, (8, 9), "NVIDIA L40S", None, "instant", Window(None, None)),
        (9, (9, 0), "NVIDIA H100 80GB HBM3", 550, "instant", Window(0.1, 0.025)),
        (9, (9, 0), "NVIDIA H100 80GB HBM3", None, "average", Window(0.1, 1.0)),
        (9, (9, 0), "NVIDIA GH200 480GB", 550, "instant", Window(0.02, None)),
        (6, (7, 5), "Tesla T4", 535, "legacy", Window(0.1, 0.1)),
        (5, (7, 0), "Tesla V100-SXM2-16GB", 535, "instant", Window(0.02, 0.01)),
        (2, (3, 5), "Tesla K40m", 390, "legacy", Window(0.015, None)),
        (2, (3, 7), "Tesla K80", 470, "legacy", Window(0.1, None)),
        (10, (10, 0), "NVIDIA B200", 570, "average", Window(None, 1.0)),
        (10, (10, 0), "NVIDIA B200", 570, "instant", Window(None, None)),
        (7, (8, 7), "Orin", 540, "legacy", Window(None, None)),
        (0xFFFFFFFF, (0, 0), "?", 580, "legacy", Window(None, None)),
    ],
)
def test_windows_by_generation_branch_and_reading(
    architecture: int, capability: tuple[int, int], name: str, branch: int | None, reading: str, expected: Window
) -> None:
    found = power_window(generation(architecture, capability, name), branch, reading)  # type: ignore[arg-type]
    assert found == expected
