"""Small sessions of meters that read each second, with known energy; also ones that hold little or hostile names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from made_session import made_manifest, made_marks, made_stream

from director.session.files import store_manifest
from director.session.manifest import PhaseSource
from drivers.contract import Accuracy, Channel, Status

S = 1_000_000_000
ORIGIN_NS = 1000 * S
MARKS = [PhaseSource(kind="marks", file="marks")]
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "a|b `c` **d** _e_ [f](http://g) ~~h~~ \\",
    '=HYPERLINK("http://x","y")',
    '+1, "quoted"',
    "@someone #1 &lt; $\\frac{1}{0",
    "two\nlines\r\n# and a heading",
    "_underscore 🔥 \u202eltr \x1b[31m\x00",
    "1. item " + "x" * 2048,
    "- ```",
]


def at(seconds: float) -> int:
    return ORIGIN_NS + round(seconds * S)


def meter(device: str = "meter", **more: Any) -> Channel:
    """Gives, each second, the mean of the second before; within 1 % of what it reads."""
    known: dict[str, Any] = {
        "name": f"made/{device}/power",
        "device": device,
        "quantity": "power",
        "unit": "W",
        "kind": "gauge",
        "scope": "wall",
        "update_period_s": 1.0,
        "window_s": 1.0,
        "stamped": True,
        "accuracy": Accuracy(reading_fraction=0.01),
    }
    return Channel(**{**known, **more})


def readings(session: Path, watts: Any, channel: Channel | None = None, number: int = 0) -> Any:
    """Value i stands for the second that begins at i; NaN: missing."""
    values = np.asarray(watts, dtype=float)
    status = np.where(np.isnan(values), Status.MISSING, Status.NEW).astype(np.uint8)
    t_ns = ORIGIN_NS + (np.arange(len(values)) + 1) * S
    given = channel or meter()
    return made_stream(session, [given], t_ns, [values], rate_hz=1.0, statuses=[status], number=number)


def made_training(session: Path, run_s: float = 30.0) -> Path:
    """60 s: 100 W, and 200 W for the 30 s from 15 s on, of which a GPU draws 120 W; two epochs in the run."""
    wall = readings(session, [100.0] * 15 + [200.0] * 30 + [100.0] * 15)
    gpu = readings(session, [20.0] * 15 + [120.0] * 30 + [20.0] * 15, meter("gpu0", scope="gpu"), 1)
    made_marks(session, [("run", at(15), at(15 + run_s)), ("epoch", at(16), at(30)), ("epoch", at(30), at(44))])
    made_manifest(session, [wall, gpu], (at(0), at(60)), phase_sources=MARKS, label="resnet")
    return session


def made_hostile(session: Path, names: Sequence[str] = HOSTILE) -> Path:
    """Label, phases, devices, warnings and command are text that means something to Markdown, HTML or a spreadsheet."""
    channels = [meter(name.replace("/", "-"), scope="gpu", model=name) for name in names]
    t_ns = ORIGIN_NS + (np.arange(60) + 1) * S
    file = made_stream(session, channels, t_ns, [np.full(60, 50.0)] * len(channels), rate_hz=1.0)
    made_marks(session, [(name, at(i), at(i + 5)) for i, name in enumerate(names)])
    manifest = made_manifest(
        session,
        [file],
        (at(0), at(60)),
        phase_sources=MARKS,
        label=names[1],
        missing=list(names),
        environment={"A": names[0]},
    )
    assert manifest.workload is not None
    workload = msgspec.structs.replace(manifest.workload, argv=["sh", *names], cwd=names[0])
    store_manifest(session, msgspec.structs.replace(manifest, workload=workload))
    return session


LITTLE = ("no power", "no phases", "no reading", "one reading", "only estimates", "nothing was run", "some are missing")


def made_little(session: Path, what: str) -> Path:
    """A session of which there is little to tell."""
    some = [80.0] * 10 + [np.nan] * 10 + [80.0] * 10
    watts = {"one reading": [80.0], "no reading": [], "some are missing": some}.get(what, [80.0] * 30)
    channel = meter("cpu", scope="package", estimate=what == "only estimates")
    if what == "no power":
        channel = meter("cpu", quantity="temperature", unit="°C", scope="none")
    file = readings(session, watts, channel)
    if what not in ("no phases", "nothing was run"):
        made_marks(session, [("run", at(0), at(10))])
    span = None if what == "nothing was run" else (at(0), at(30))
    made_manifest(session, [file], span, phase_sources=MARKS)
    return session


def made_series(folder: Path) -> Path:
    """Three trainings that take 30, 32 and 34 s, of which the last failed with status 3."""
    for number, seconds in enumerate((30, 32, 34), 1):
        made_training(folder / f"run-00{number}", seconds)
    runs = [{"directory": f"run-00{i}", "status": 3 if i == 3 else 0} for i in (1, 2, 3)]
    series = {"schema_version": 1, "command": ["job", "a|b"], "created_wall_ns": 0, "planned": 3, "label": "<b>|x"}
    (folder / "series.json").write_text(json.dumps({**series, "runs": runs}))
    return folder
