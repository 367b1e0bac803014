"""docs/benchmarks.md and its figures are what the stored results say, and drawing them twice gives the same bytes."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import page
import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


ORDER = list(importlib.import_module("all").BENCHMARKS)


def test_the_page_is_what_the_results_say() -> None:
    results = page.load()
    assert set(results) == set(ORDER)
    assert page.PAGE.read_text(encoding="utf-8") == page.render(results, ORDER), (
        "docs/benchmarks.md is not what the results say; python benchmarks/all.py --page writes it"
    )


def test_another_result_makes_another_page() -> None:
    results = copy.deepcopy(page.load())
    device = results[page.CURVES]["figures"]["devices"]["v100"]
    device["places"]["within a work"]["methods"]["integrated"]["median"][0] = 0.98765
    results["ticks"]["printed"] = ["due 7"]
    shown = page.render(results, ORDER)
    assert "| 99 / " in shown
    assert "\n```\ndue 7\n```\n" in shown


def test_each_figure_carries_the_digest_of_its_results() -> None:
    import curve_plots

    devices = page.load()[page.CURVES]["figures"]["devices"]
    assert {path.stem for path in page.IMAGES.glob("*.svg")} == set(devices)
    for name, device in devices.items():
        svg = (page.IMAGES / f"{name}.svg").read_text(encoding="utf-8")
        assert f"<desc>Figures: benchmarks/results/curves.json, {curve_plots.digest(device)}</desc>" in svg, (
            f"{name}.svg was drawn from other figures; python benchmarks/all.py --page draws it"
        )


DRAW = "import json, sys, curve_plots; print(curve_plots.draw(json.load(sys.stdin), json.loads(sys.argv[1])), end='')"


def test_drawing_twice_gives_the_same_bytes() -> None:
    pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install '.[bench]'")
    found = page.load()[page.CURVES]["figures"]
    drawn = {
        subprocess.run(
            [sys.executable, "-c", DRAW, json.dumps(found["lengths_s"])],
            input=json.dumps(found["devices"]["rapl"]),
            env={**os.environ, "PYTHONPATH": str(BENCHMARKS), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    (svg,) = drawn
    assert svg.startswith("<?xml") and "prefers-color-scheme: dark" in svg
    assert "dc:date" not in svg
