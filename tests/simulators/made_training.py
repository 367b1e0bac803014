"""MLPerf Training submissions with known times and powers: result logs that pass the checks, and power logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

START_MS = 1_760_000_000_000
_PRECISIONS = [f"lowest_numerical_precision_in_{part}" for part in ("linear", "attn", "comm")]
_PARALLEL = [f"{kind}_parallelism" for kind in ("tensor", "pipeline", "context", "expert")] + ["micro_batch_size"]


def line(key: str, time_ms: float, value: object = None, metadata: object = None, prefix: str = "") -> str:
    """A line as mllog writes it."""
    event = {"INTERVAL_START": "start", "INTERVAL_END": "stop"}
    kind = next((name for name, end in event.items() if key.endswith(f"_{end}")), "POINT_IN_TIME")
    content = {
        "namespace": "",
        "time_ms": time_ms,
        "event_type": kind,
        "key": key,
        "value": value,
        "metadata": {"file": "train.py", "lineno": 88} if metadata is None else metadata,
    }
    return f"{prefix}:::MLLOG {json.dumps(content)}\n"


def result_entries(start_ms: float, minutes: float, accuracy: float = 0.92) -> list[tuple[str, float, Any, Any]]:
    """A log of llama2_70b_lora that passes the checks of every round from 4.0 to 6.1."""
    stop_ms = start_ms + minutes * 60e3
    once = {
        "submission_benchmark": "llama2_70b_lora",
        "submission_org": "made",
        "submission_division": "closed",
        "submission_status": "onprem",
        "submission_platform": "made",
        **dict.fromkeys(("global_batch_size", "gradient_accumulation_steps", "train_samples", "eval_samples"), 8),
        **dict.fromkeys(("opt_base_learning_rate", "opt_learning_rate_training_steps", "opt_gradient_clip_norm"), 0.3),
        **dict.fromkeys(("opt_adamw_weight_decay", "lora_alpha"), 0.1),
        "lora_rank": 16,
        **dict.fromkeys(_PRECISIONS, "fp8"),
        **dict.fromkeys(_PARALLEL, 1),
        "config_filename": "made.yaml",
    }
    before = start_ms - 60_000
    count = {"samples_count": 3072}
    return [
        ("cache_clear", before, True, {}),
        ("init_start", before, None, {}),
        *((key, before, value, {}) for key, value in once.items()),
        ("init_stop", start_ms - 1, None, {}),
        ("run_start", start_ms, None, {}),
        ("block_start", start_ms, None, {"samples_count": 0}),
        ("eval_start", stop_ms - 10, None, count),
        ("eval_accuracy", stop_ms - 5, accuracy, count),
        ("eval_stop", stop_ms - 4, None, count),
        ("block_stop", stop_ms - 2, None, count),
        ("run_stop", stop_ms, accuracy, {"samples_count": 3072, "status": "success"}),
    ]


def result_text(start_ms: float, minutes: float, accuracy: float = 0.92, prefix: str = "") -> str:
    """The text of `result_entries`."""
    return "".join(line(*entry, prefix=prefix) for entry in result_entries(start_ms, minutes, accuracy))


def power_text(
    times_ms: Iterable[float],
    watts: Callable[[float], float],
    *,
    start_ms: float | None = None,
    stop_ms: float | None = None,
    efficiency: float | None = None,
) -> str:
    """A node's log: readings at the times, between a start and a stop line where these are given."""
    lines = [line("power_measurement_start", start_ms)] if start_ms is not None else []
    if efficiency is not None:
        lines.append(line("conversion_eff", start_ms or 0, efficiency))
    lines += [line("power_reading", t, watts(t)) for t in times_ms]
    if stop_ms is not None:
        lines.append(line("power_measurement_stop", stop_ms))
    return "".join(lines)


def write_benchmark(
    folder: Path,
    minutes: Sequence[float],
    watts: Sequence[float] = (),
    *,
    nodes: int = 2,
    margin_ms: float = 0.0,
    accuracy: float = 0.92,
) -> list[Path]:
    """A benchmark's folder with a run for each of `minutes`; nodes draw `watts[run]` each, read once a second.

    With `watts`, each run has power logs from `margin_ms` before to `margin_ms` after it; outside nodes draw 100 W.
    """
    files = []
    for number, length in enumerate(minutes):
        start = START_MS + number * 86_400_000
        stop = start + length * 60e3
        file = folder / f"result_{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(result_text(start, length, accuracy))
        files.append(file)
        if not watts:
            continue
        power = folder / "power" / f"result_{number}"
        power.mkdir(parents=True)
        count = round((stop - start + 2 * margin_ms) / 1000)
        times = [start - margin_ms + 1000 * i for i in range(count + 1)]
        drawn = watts[number]
        text = power_text(
            times,
            lambda t, start=start, stop=stop, drawn=drawn: drawn if start < t <= stop else 100.0,
            start_ms=times[0],
            stop_ms=times[-1] + 1,
        )
        for node in range(nodes):
            (power / f"node_{node}.txt").write_text(text)
    return files
