"""What the logs of each round must hold (mlcommons/logging, compliance_checker/training_*; training_policies)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from director.mlperf.training.closed_rules import CLOSED, CLOSED_CHANGED, RESNET
from director.mlperf.training.compliance import Rule, Section, Seen
from director.mlperf.training.open_rules import OPEN, OPEN_AT_EPOCH
from director.mlperf.training.rule_checks import EPOCH, NOT_EMPTY, POSITIVE, SAMPLES, has, is_whole, once, value
from director.phases.sources.mllog import Entry

ROUNDS = ("4.0", "4.1", "5.0", "5.1", "6.0", "6.1")


def _init_start(entry: Entry, seen: Seen) -> bool:
    seen["first init"] = min(seen.get("first init", math.inf), entry.time_ms)
    return "init_stop" not in seen and "run_start" not in seen


def _init_stop(entry: Entry, seen: Seen) -> bool:
    """In time: 30 minutes after the first start, in the open division 240."""
    if "submission_division" not in seen:
        return False
    minutes = 240 if seen["submission_division"] == "open" else 30
    return "run_start" not in seen and entry.time_ms - seen["first init"] < minutes * 60e3


def _block_start(entry: Entry, seen: Seen) -> bool:
    metadata = entry.metadata
    if "run_start" not in seen or not ("epoch_count" in metadata or SAMPLES in metadata):
        return False
    if "epoch_count" in metadata and not ("first_epoch_num" in metadata and metadata["epoch_count"] > 0):
        return False
    return SAMPLES not in metadata or bool(metadata[SAMPLES] >= 0)


def _common(round_name: str) -> Section:
    at_epoch = has(EPOCH) if round_name < "5.0" else has(EPOCH, SAMPLES)
    at_eval = has(EPOCH, SAMPLES)
    rules = {
        **once("submission_division", value(lambda value: value in ("closed", "open"))),
        "cache_clear": Rule(once=False),
        "init_start": Rule(once=False, each=(_init_start,)),
        **once("init_stop", _init_stop),
        **once("run_start", lambda _, seen: "init_stop" in seen),
        **once("run_stop", lambda entry, seen: "run_start" in seen and "status" in entry.metadata),
        "block_start": Rule(once=False, each=(_block_start,), or_key="epoch_start"),
        "block_stop": Rule(once=False, each=(has("first_epoch_num", SAMPLES),), or_key="epoch_stop"),
        "epoch_start": Rule(once=False, each=(at_epoch,), or_key="block_start"),
        "epoch_stop": Rule(once=False, each=(at_epoch,), or_key="block_stop"),
        "eval_start": Rule(once=False, each=(at_eval,), or_key="block_start"),
        "eval_stop": Rule(once=False, each=(at_eval,), or_key="block_stop"),
        "eval_accuracy": Rule(once=False, each=(at_eval,)),
        **once("train_samples eval_samples", NOT_EMPTY),
    }
    if round_name != "5.0":
        rules |= once("submission_org submission_platform", NOT_EMPTY)
    if round_name == "4.0":
        rules |= once("submission_status", value(lambda v: v in ("cloud", "onprem", "preview", "research")))
    if round_name >= "6.0":
        rules |= _disclosure(is_needed=round_name >= "6.1")
    return rules


_PRECISIONS = {
    *("fp64", "fp32", "tf32", "fp16", "bfloat16", "Graphcore FLOAT 16.16", "fp8", "nvfp4", "mxfp4"),
    *("int8", "uint8", "int4", "uint4"),
}


def _disclosure(is_needed: bool) -> dict[str, Rule]:
    precisions = {*_PRECISIONS, "mxfp6"} if is_needed else _PRECISIONS
    whole = value(lambda value: is_whole(value) and (value >= 1 or not is_needed))
    rules = {
        **once(
            " ".join(f"lowest_numerical_precision_in_{part}" for part in ("linear", "attn", "comm")),
            value(lambda value: value in precisions),
        ),
        **once(
            "tensor_parallelism pipeline_parallelism context_parallelism expert_parallelism micro_batch_size", whole
        ),
        **once("config_filename", NOT_EMPTY if is_needed else None),
    }
    return rules if is_needed else {key: rule._replace(least=0, once=False) for key, rule in rules.items()}


def rules_of(round_name: str) -> Callable[[Mapping[str, Any]], Sequence[Section] | str]:
    """For `compliance.problems`: the sections of a round, by what the log says of itself."""

    def sections(first: Mapping[str, Any]) -> Sequence[Section] | str:
        division, benchmark = first.get("submission_division"), first.get("submission_benchmark")
        if not first:
            return "the log has no MLLOG line"
        if division not in ("closed", "open"):
            return f"submission_division is {division!r}, neither closed nor open"
        rounds, section = (CLOSED if division == "closed" else OPEN).get(str(benchmark), ("", {}))
        if round_name not in rounds.split():
            return f"round {round_name} has no benchmark {benchmark!r} in the {division} division"
        own = dict(section)
        if division == "closed":
            own |= CLOSED_CHANGED.get((str(benchmark), round_name), {})
        elif benchmark in OPEN_AT_EPOCH[0] and round_name in OPEN_AT_EPOCH[1]:
            own["eval_accuracy"] = own["eval_accuracy"]._replace(each=(has(EPOCH),))
        all_closed = once("gradient_accumulation_steps", POSITIVE) if division == "closed" else {}
        found = [_common(round_name), {**once("submission_benchmark"), **all_closed}, own]
        if benchmark == "resnet" and division == "closed":
            optimizer = str(first.get("opt_name"))
            if optimizer not in RESNET:
                return f"opt_name is {optimizer!r}, neither sgd nor lars"
            found.append(RESNET[optimizer])
        return found

    return sections


def wanted_keys() -> frozenset[str]:
    """All keys that a rule of any round looks at."""
    own = [section for _, section in (*CLOSED.values(), *OPEN.values())]
    named = ("submission_benchmark", "gradient_accumulation_steps")
    return frozenset(named).union(*map(_common, ROUNDS), *own, *RESNET.values())
