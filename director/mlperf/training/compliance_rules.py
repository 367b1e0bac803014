"""What the logs of each round must hold (mlcommons/logging, compliance_checker/training_*; training_policies)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from director.mlperf.training.compliance import Check, Rule, Section, Seen
from director.phases.sources.mllog import Entry

ROUNDS = ("4.0", "4.1", "5.0", "5.1", "6.0", "6.1")
_SAMPLES, _EPOCH = "samples_count", "epoch_num"


# --- Checks


def _equal(wanted: object) -> Check:
    return lambda entry, _: entry.value == wanted


def _value(test: Callable[[Any], bool]) -> Check:
    return lambda entry, _: test(entry.value)


def _has(key: str, or_key: str | None = None) -> Check:
    """One of the keys is in the line's metadata."""
    if or_key is None:
        return lambda entry, _: key in entry.metadata
    return lambda entry, _: key in entry.metadata or or_key in entry.metadata


def _to_seen(test: Callable[[Any, Seen], bool]) -> Check:
    """A value that depends on values of lines before."""
    return lambda entry, seen: test(entry.value, seen)


def _is_whole(value: Any) -> bool:
    return bool(abs(round(value) - value) < 0.00001)


_NOT_EMPTY = _value(lambda value: value != "")
_POSITIVE = _value(lambda value: value > 0)
_NOT_NEGATIVE = _value(lambda value: value >= 0)
_COUNT = _value(lambda value: _is_whole(value) and value > 0)
_SHARE = _value(lambda value: 0.0 <= value <= 1.0)


def _once(names: str, check: Check | None = None) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), Rule(each=(check,) if check else ()))


def _fixed(**values: object) -> dict[str, Rule]:
    return {name: Rule(each=(_equal(value),)) for name, value in values.items()}


def _target(
    at: str, reached: Callable[[Any], bool], key: str = "eval_accuracy", *also: Check, first: Check | None = None
) -> dict[str, Rule]:
    return {key: Rule(once=False, each=(_has(at), *also), first=first, reached=_value(reached))}


# --- All logs


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
    if "run_start" not in seen or not ("epoch_count" in metadata or _SAMPLES in metadata):
        return False
    if "epoch_count" in metadata and not ("first_epoch_num" in metadata and metadata["epoch_count"] > 0):
        return False
    return _SAMPLES not in metadata or bool(metadata[_SAMPLES] >= 0)


def _common(round_name: str) -> Section:
    at_epoch = _has(_EPOCH) if round_name < "5.0" else _has(_EPOCH, _SAMPLES)
    at_eval = _has(_EPOCH, _SAMPLES)
    rules = {
        **_once("submission_division", _value(lambda value: value in ("closed", "open"))),
        "cache_clear": Rule(once=False),
        "init_start": Rule(once=False, each=(_init_start,)),
        **_once("init_stop", _init_stop),
        **_once("run_start", lambda _, seen: "init_stop" in seen),
        **_once("run_stop", lambda entry, seen: "run_start" in seen and "status" in entry.metadata),
        "block_start": Rule(once=False, each=(_block_start,), or_key="epoch_start"),
        "block_stop": Rule(once=False, each=(_has("first_epoch_num", _SAMPLES),), or_key="epoch_stop"),
        "epoch_start": Rule(once=False, each=(at_epoch,), or_key="block_start"),
        "epoch_stop": Rule(once=False, each=(at_epoch,), or_key="block_stop"),
        "eval_start": Rule(once=False, each=(at_eval,), or_key="block_start"),
        "eval_stop": Rule(once=False, each=(at_eval,), or_key="block_stop"),
        "eval_accuracy": Rule(once=False, each=(at_eval,)),
        **_once("train_samples eval_samples", _NOT_EMPTY),
    }
    if round_name != "5.0":
        rules |= _once("submission_org submission_platform", _NOT_EMPTY)
    if round_name == "4.0":
        rules |= _once("submission_status", _value(lambda v: v in ("cloud", "onprem", "preview", "research")))
    if round_name >= "6.0":
        rules |= _disclosure(is_needed=round_name >= "6.1")
    return rules


_PRECISIONS = {
    *("fp64", "fp32", "tf32", "fp16", "bfloat16", "Graphcore FLOAT 16.16", "fp8", "nvfp4", "mxfp4"),
    *("int8", "uint8", "int4", "uint4"),
}


def _disclosure(is_needed: bool) -> dict[str, Rule]:
    precisions = {*_PRECISIONS, "mxfp6"} if is_needed else _PRECISIONS
    whole = _value(lambda value: _is_whole(value) and (value >= 1 or not is_needed))
    rules = {
        **_once(
            " ".join(f"lowest_numerical_precision_in_{part}" for part in ("linear", "attn", "comm")),
            _value(lambda value: value in precisions),
        ),
        **_once(
            "tensor_parallelism pipeline_parallelism context_parallelism expert_parallelism micro_batch_size", whole
        ),
        **_once("config_filename", _NOT_EMPTY if is_needed else None),
    }
    return rules if is_needed else {key: rule._replace(least=0, once=False) for key, rule in rules.items()}


# --- Benchmarks, closed division

_ADAMW_8K = {  # llama31 and gpt_oss
    **_once("global_batch_size opt_base_learning_rate opt_end_learning_rate opt_learning_rate_warmup_steps"),
    **_once("gradient_accumulation_steps", _POSITIVE),
    **_fixed(
        max_sequence_length=8192,
        opt_name="adamw",
        opt_learning_rate_decay_schedule="cosine with linear warmup",
        opt_adamw_beta_1=0.9,
        opt_adamw_beta_2=0.95,
        opt_adamw_epsilon=1e-05,
        opt_adamw_weight_decay=0.1,
        opt_gradient_clip_norm=1.0,
    ),
}
_SHORT_LLM = {
    **_ADAMW_8K,
    **_once(
        "opt_learning_rate_decay_steps",
        _to_seen(lambda value, seen: value == 1_200_000 - seen["opt_learning_rate_warmup_steps"]),
    ),
    **_fixed(eval_samples=1024, max_steps=1_200_000),
}
_LLAMA31_405B = {
    **_ADAMW_8K,
    **_once("opt_learning_rate_decay_steps"),
    **_once("opt_base_learning_rate", _to_seen(lambda v, seen: v * 1152 == seen["global_batch_size"] * 8e-5)),
    **_fixed(eval_samples=5760, init_checkpoint_step=0),
    **_target(_SAMPLES, lambda value: 0.0 < value <= 5.6),
}


def _decay_405b(value: Any, seen: Seen) -> bool:
    if "opt_learning_rate_warmup_steps" not in seen:
        return False
    batch = seen["global_batch_size"]
    return bool(value == math.ceil(1_200_000 * 1152 / batch) - math.ceil(8000 * 1152 / batch))


_GPT3 = {
    **_once("global_batch_size opt_end_learning_rate opt_learning_rate_decay_steps opt_learning_rate_warmup_steps"),
    **_once("eval_samples"),
    **_once("opt_base_learning_rate", _value(lambda value: value in (2e-5, 3e-5))),
    **_once("gradient_accumulation_steps init_checkpoint_step", _POSITIVE),
    **_fixed(
        max_sequence_length=2048,
        opt_name="adam",
        opt_learning_rate_decay_schedule="cosine with linear warmup",
        opt_adam_beta_1=0.9,
        opt_adam_beta_2=0.95,
        opt_adam_epsilon=1e-8,
        opt_gradient_clip_norm=1.0,
    ),
    **_target(_EPOCH, lambda value: 2.6 < value <= 2.69),
}
_IMAGE_ADAMW = {  # stable_diffusion and flux1
    "global_batch_size": Rule(once=False, each=(_NOT_NEGATIVE,)),
    **_once("opt_base_learning_rate opt_learning_rate_warmup_steps", _NOT_NEGATIVE),
    **_fixed(opt_name="adamw", opt_adamw_beta_1=0.9, opt_adamw_epsilon=1e-08),
}
_FLUX1 = {
    **_IMAGE_ADAMW,
    **_fixed(
        evaluation_frequency=262144, opt_adamw_beta_2=0.95, opt_adamw_weight_decay=0.1, opt_gradient_clip_norm=1.0
    ),
    **_target(_SAMPLES, lambda value: 0.0 < value <= 0.586),
}
_BOTH_SCORES = (
    _value(lambda value: "FID" in value),
    _value(lambda value: "CLIP" in value),
    _value(lambda value: _SAMPLES in value),
)


def _joint_accuracy(reached: Callable[[Any], bool]) -> dict[str, Rule]:
    """Of lines made by `with_joint_accuracy`."""
    return {JOINT: Rule(least=2, once=False, each=_BOTH_SCORES, reached=_value(reached))}


JOINT = "aggregated_eval_accuracy"


def with_joint_accuracy(entries: Sequence[Entry]) -> list[Entry]:
    """Add, after all, a line for each samples_count: the values of the metrics that were taken at it."""
    joint: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        if entry.key == "eval_accuracy" and isinstance(entry.metadata, dict) and "metric" in entry.metadata:
            count = str(entry.metadata.get(_SAMPLES))
            joint.setdefault(count, {_SAMPLES: count})[str(entry.metadata["metric"])] = entry.value
    return [*entries, *(Entry(JOINT, 0.0, values, {}) for values in joint.values())]


def _power_of_2_times(unit: float) -> Check:
    return _value(lambda value: _is_whole(math.log2(value / unit)))


_RESNET = {
    "sgd": {
        **_once("sgd_opt_base_learning_rate", _value(lambda value: _is_whole(value / 0.001))),
        **_once("sgd_opt_learning_rate_decay_poly_power sgd_opt_learning_rate_decay_steps sgd_opt_momentum"),
        **_once("model_bn_span opt_learning_rate_warmup_epochs"),
        **_once("sgd_opt_weight_decay", _power_of_2_times(0.0001)),
        **_fixed(sgd_opt_end_learning_rate=0.0001),
    },
    "lars": {
        **_once("lars_opt_base_learning_rate lars_opt_learning_rate_decay_steps lars_opt_learning_rate_warmup_epochs"),
        **_once("lars_opt_momentum"),
        **_once("lars_opt_weight_decay", _power_of_2_times(0.0001)),
        **_fixed(lars_opt_end_learning_rate=0.0001, lars_opt_learning_rate_decay_poly_power=2, lars_epsilon=0.0),
    },
}
_GNN = {
    **_once("global_batch_size", _POSITIVE),
    **_once("opt_base_learning_rate", _NOT_NEGATIVE),
    **_fixed(opt_name="adam"),
    **_target(_EPOCH, lambda value: 0.72 <= value < 1.0),
}
_DETECTION = {  # ssd and retinanet
    **_once("global_batch_size"),
    **_once("opt_base_learning_rate opt_learning_rate_warmup_epochs opt_learning_rate_warmup_factor", _NOT_NEGATIVE),
    **_fixed(opt_name="adam", opt_weight_decay=0.0),
    **_target(_EPOCH, lambda value: 0.340 <= value < 1.0),
}
_DEEPSEEK = {
    **_once("global_batch_size", _value(lambda value: value >= 15360)),
    **_once("max_steps"),
    **_once(
        "opt_base_learning_rate",
        _to_seen(lambda v, seen: abs(v - 2.4e-05 * (seen["global_batch_size"] / 16384) ** 0.5) < 1e-9),
    ),
    **_once(
        "opt_learning_rate_decay_steps",
        _to_seen(lambda value, seen: value == 12000 - seen["opt_learning_rate_warmup_steps"]),
    ),
    **_once("gradient_accumulation_steps", _POSITIVE),
    **_fixed(
        max_sequence_length=4096,
        opt_name="adamw",
        opt_learning_rate_warmup_steps=4,
        opt_learning_rate_decay_schedule="cosine with linear warmup",
        opt_adamw_beta_1=0.9,
        opt_adamw_beta_2=0.95,
        opt_adamw_epsilon=1e-08,
        opt_adamw_weight_decay=0.1,
        opt_gradient_clip_norm=1.0,
        moe_aux_loss_coeff=0.01,
        eval_samples=1024,
    ),
    **_target(_SAMPLES, lambda value: 0.0 < value <= 3.6),
}


def _first_eval_deepseek(entry: Entry, seen: Seen) -> bool:
    batch = seen["global_batch_size"]
    return bool(int(entry.metadata[_SAMPLES]) == batch * math.floor(42 + 24576 / batch))


_DLRM4_SAMPLES = 2290835423


def _dlrm4_interval(batch: Any) -> Any:
    """Training samples between evaluations: a thousandth of the data set, in whole batches."""
    return max(1, math.ceil(0.001 * _DLRM4_SAMPLES / batch)) * batch


def _first_eval_dlrm4(entry: Entry, seen: Seen) -> bool:
    batch = seen["global_batch_size"]
    interval = _dlrm4_interval(batch)
    earliest = math.floor((4480 * batch + 135331840) / 3)
    return bool(int(entry.metadata[_SAMPLES]) == math.ceil(earliest / interval) * interval)


def _dlrm4_rate(value: Any, seen: Seen) -> bool:
    """Half to one and a half times what the reference uses for this batch size."""
    unit = 1e-6 * seen["global_batch_size"] / 8192
    return bool(0.5 * unit * (1 - 1e-9) <= value <= 1.5 * unit * (1 + 1e-9))


_DLRM4 = {
    **_once("global_batch_size", _COUNT),
    **_once("opt_base_learning_rate", _to_seen(_dlrm4_rate)),
    **_once("opt_sparse_base_learning_rate", _to_seen(lambda value, seen: value == seen["opt_base_learning_rate"])),
    **_fixed(
        train_samples=_DLRM4_SAMPLES,
        eval_samples=2058204,
        max_sequence_length=4096,
        opt_name="Adam",
        opt_adam_beta_1=0.95,
        opt_adam_beta_2=0.999,
        opt_adam_epsilon=1e-8,
        opt_weight_decay=0.0,
        opt_gradient_clip_norm=1.0,
        opt_sparse_name="RowWiseAdagrad",
        opt_learning_rate_warmup_steps=24000,
        opt_learning_rate_warmup_start_lr=0.0,
        eval_every_data_pct=0.001,
    ),
    **_target(
        _SAMPLES,
        lambda value: value >= 0.75,
        "eval_accuracy",
        lambda entry, seen: entry.metadata[_SAMPLES] % _dlrm4_interval(seen["global_batch_size"]) == 0,
        _SHARE,
        first=_first_eval_dlrm4,
    ),
}


def _next_eval_qwen(entry: Entry, seen: Seen) -> bool:
    """Evaluations come every batch from the first one on that the batch size allows."""
    batch = seen["global_batch_size"]
    expected = seen.setdefault("next eval", batch * math.ceil(2.5 + 3840 / batch))
    if entry.metadata[_SAMPLES] != expected:
        return False
    seen["next eval"] = expected + batch
    return True


_QWEN = {
    **_once("global_batch_size num_prompts_per_step", _COUNT),
    **_once("max_steps"),
    **_once(
        "opt_base_learning_rate",
        _to_seen(lambda value, seen: abs(value - 1e-6 * (seen["global_batch_size"] / 256) ** 0.5) < 1e-9),
    ),
    **_once(
        "opt_gradient_clip_norm",
        _to_seen(lambda value, seen: abs(value - 0.125 * (256 / seen["global_batch_size"]) ** 0.5) < 1e-9),
    ),
    **_once(
        "num_generations_per_prompt",
        _to_seen(lambda v, seen: v == 16 and seen["global_batch_size"] == seen["num_prompts_per_step"] * v),
    ),
    **_fixed(
        max_sequence_length=65536,
        eval_samples=251,
        init_checkpoint_step=0,
        opt_name="adamw",
        opt_adamw_beta_1=0.9,
        opt_adamw_beta_2=0.999,
        opt_adamw_epsilon=1e-8,
        opt_adamw_weight_decay=0.0,
        opt_learning_rate_warmup_steps=0,
        opt_learning_rate_decay_schedule="constant",
        generation_training_rollout_temperature=1.0,
        generation_training_rollout_top_p=1.0,
        generation_validation_rollout_temperature=0.1,
        generation_validation_rollout_top_p=0.95,
    ),
    **_target(_SAMPLES, lambda value: value > 0.69, "eval_accuracy", _next_eval_qwen, _SHARE),
}
_CLOSED: dict[str, tuple[str, Section]] = {  # the rounds, and the rules where they do not change
    "bert": (
        "4.0 4.1 5.0",
        {
            **_once("global_batch_size opt_base_learning_rate opt_lamb_epsilon opt_learning_rate_training_steps"),
            **_once("opt_learning_rate_warmup_steps num_warmup_steps start_warmup_step opt_lamb_beta_1"),
            **_once("opt_lamb_beta_2 opt_lamb_weight_decay_rate"),
            **_target(_EPOCH, lambda value: 0.720 <= value < 1.0),
        },
    ),
    "dlrm_dcnv2": (
        "4.0 4.1 5.0 5.1 6.0",
        {
            **_once("global_batch_size opt_base_learning_rate"),
            **_fixed(
                opt_name="adagrad",
                opt_adagrad_learning_rate_decay=0,
                opt_weight_decay=0,
                opt_adagrad_initial_accumulator_value=0,
                opt_adagrad_epsilon=1e-8,
                opt_learning_rate_warmup_steps=0,
                opt_learning_rate_decay_start_step=0,
                opt_learning_rate_decay_steps=0,
                eval_samples=89137319,
            ),
            **_target(_EPOCH, lambda value: 0.80275 <= value <= 1.0),
        },
    ),
    "resnet": (
        "4.0",
        {
            **_once("global_batch_size", _POSITIVE),
            **_once("opt_name", _value(lambda value: value in _RESNET)),
            **_target(_EPOCH, lambda value: 0.7590 <= value < 1.0),
        },
    ),
    "ssd": ("4.0 4.1", _DETECTION),
    "retinanet": ("5.0 5.1", _DETECTION),
    "unet3d": (
        "4.0",
        {
            **_once("global_batch_size opt_name opt_base_learning_rate opt_learning_rate_decay_boundary_epochs"),
            **_once("opt_learning_rate_decay_factor opt_weight_decay seed opt_momentum oversampling"),
            **_once("training_input_shape validation_input_shape validation_overlap"),
            **_once("opt_learning_rate_warmup_epochs", _NOT_NEGATIVE),
            **_fixed(train_samples=168, eval_samples=42),
            **_target(_EPOCH, lambda value: value >= 0.908),
        },
    ),
    "gpt3": ("4.0 4.1", _GPT3),
    "gnn": ("4.0 4.1", _GNN),
    "rgat": ("5.0 5.1", _GNN),
    "llama2_70b_lora": (
        "4.0 4.1 5.0 5.1 6.0 6.1",
        {
            **_once("global_batch_size opt_base_learning_rate opt_learning_rate_training_steps lora_alpha"),
            **_once("opt_gradient_clip_norm opt_adamw_weight_decay gradient_accumulation_steps"),
            **_fixed(lora_rank=16),
            **_target(_SAMPLES, lambda value: 0.0 < value <= 0.925),
        },
    ),
    "stable_diffusion": (
        "4.0 4.1 5.0",
        {
            **_IMAGE_ADAMW,
            **_fixed(opt_adamw_beta_2=0.999, opt_adamw_weight_decay=0.01),
            **_joint_accuracy(lambda value: 0.0 <= value["FID"] <= 90.0 and 0.15 <= value["CLIP"] <= 1.0),
        },
    ),
    "llama31_405b": ("5.0 5.1 6.0", _LLAMA31_405B),
    "llama31_8b": ("5.1 6.0 6.1", {**_SHORT_LLM, **_target(_SAMPLES, lambda value: 0.0 < value <= 3.3)}),
    "gpt_oss_20b": ("6.0 6.1", {**_SHORT_LLM, **_target(_SAMPLES, lambda value: 0.0 < value <= 3.34)}),
    "flux1": ("5.1 6.0 6.1", _FLUX1),
    "deepseekv3_671b": ("6.0 6.1", _DEEPSEEK),
    "dlrmv4": ("6.1", _DLRM4),
    "qwen35_397b_grpo": ("6.1", _QWEN),
}
_CLOSED_CHANGED: dict[tuple[str, str], dict[str, Rule]] = {
    **dict.fromkeys(
        (("llama31_405b", "5.1"), ("llama31_405b", "6.0")),
        _once("opt_learning_rate_decay_steps", _to_seen(_decay_405b)),
    ),
    ("flux1", "6.1"): _once(
        "evaluation_frequency",
        _to_seen(lambda v, seen: v == math.ceil(262144 / seen["global_batch_size"]) * seen["global_batch_size"]),
    ),
    ("deepseekv3_671b", "6.1"): _target(
        _SAMPLES, lambda value: 0.0 < value <= 3.6, "eval_accuracy", first=_first_eval_deepseek
    ),
}

# --- Benchmarks, open division


def _free(section: Section, *kept: str) -> dict[str, Rule]:
    """The same keys with any values, but for the kept ones."""
    return {key: rule if key in kept else rule._replace(each=()) for key, rule in section.items()}


def _below_one(at: str) -> Section:
    return _target(at, lambda value: value < 1.0)


_OPEN: dict[str, tuple[str, Section]] = {
    "bert": ("4.0 4.1 5.0", _below_one(_EPOCH)),
    "dlrm_dcnv2": ("4.0 4.1 5.0 5.1 6.0", _target(_EPOCH, lambda value: value <= 1.0)),
    **dict.fromkeys(("resnet", "unet3d"), ("4.0", _below_one(_EPOCH))),
    **dict.fromkeys(("ssd", "gnn"), ("4.0 4.1", _below_one(_EPOCH))),
    **dict.fromkeys(("retinanet", "rgat"), ("5.0 5.1", _below_one(_EPOCH))),
    "gpt3": ("4.0 4.1", _GPT3),
    "llama2_70b_lora": ("5.0 5.1 6.0 6.1", _below_one(_SAMPLES)),
    "stable_diffusion": ("4.0 4.1 5.0", _joint_accuracy(lambda value: value["FID"] >= 0.0 and value["CLIP"] <= 1.0)),
    "llama31_405b": (
        "5.0 5.1 6.0",
        _free(
            _LLAMA31_405B,
            *("max_sequence_length", "opt_name", "gradient_accumulation_steps", "eval_samples", "eval_accuracy"),
            "init_checkpoint_step",
        ),
    ),
    "llama31_8b": ("5.1 6.0 6.1", _below_one(_SAMPLES)),
    "gpt_oss_20b": (
        "6.0 6.1",
        {
            **_free(_SHORT_LLM, "max_sequence_length", "opt_name"),
            **_target(_SAMPLES, lambda value: 0.0 < value <= 3.34),
        },
    ),
    "flux1": ("5.1 6.0 6.1", _target(_SAMPLES, lambda value: 0.0 < value <= 0.586, "averaged_validation_loss")),
    "deepseekv3_671b": (
        "6.0 6.1",
        _free(
            _DEEPSEEK,
            *("global_batch_size", "max_sequence_length", "opt_name", "gradient_accumulation_steps"),
            *("eval_samples", "eval_accuracy"),
        ),
    ),
    "dlrmv4": (
        "6.1",
        {
            **_free(_DLRM4, "global_batch_size", "train_samples", "eval_samples", "opt_base_learning_rate"),
            **_once("gradient_accumulation_steps max_sequence_length", _COUNT),
            **_once("opt_sparse_base_learning_rate", _to_seen(_dlrm4_rate)),
            **_target(_SAMPLES, lambda value: value >= 0.75, "eval_accuracy", _SHARE),
        },
    ),
    "qwen35_397b_grpo": (
        "6.1",
        {
            **_free(_QWEN, *("global_batch_size", "max_sequence_length", "eval_samples"), "init_checkpoint_step"),
            **_fixed(opt_name="adamw"),
            **_once("num_prompts_per_step num_generations_per_prompt", _COUNT),
            **_target(_SAMPLES, lambda value: value > 0.69, "eval_accuracy", _SHARE),
        },
    ),
}
_OPEN_AT_EPOCH = (("llama2_70b_lora", "llama31_405b", "llama31_8b"), ("5.0", "5.1"))  # where evaluations are counted so


# --- The rules of a round


def rules_of(round_name: str) -> Callable[[Mapping[str, Any]], Sequence[Section] | str]:
    """For `compliance.problems`: the sections of a round, by what the log says of itself."""

    def sections(first: Mapping[str, Any]) -> Sequence[Section] | str:
        division, benchmark = first.get("submission_division"), first.get("submission_benchmark")
        if not first:
            return "the log has no MLLOG line"
        if division not in ("closed", "open"):
            return f"submission_division is {division!r}, neither closed nor open"
        rounds, section = (_CLOSED if division == "closed" else _OPEN).get(str(benchmark), ("", {}))
        if round_name not in rounds.split():
            return f"round {round_name} has no benchmark {benchmark!r} in the {division} division"
        own = dict(section)
        if division == "closed":
            own |= _CLOSED_CHANGED.get((str(benchmark), round_name), {})
        elif benchmark in _OPEN_AT_EPOCH[0] and round_name in _OPEN_AT_EPOCH[1]:
            own["eval_accuracy"] = own["eval_accuracy"]._replace(each=(_has(_EPOCH),))
        all_closed = _once("gradient_accumulation_steps", _POSITIVE) if division == "closed" else {}
        found = [_common(round_name), {**_once("submission_benchmark"), **all_closed}, own]
        if benchmark == "resnet" and division == "closed":
            optimizer = str(first.get("opt_name"))
            if optimizer not in _RESNET:
                return f"opt_name is {optimizer!r}, neither sgd nor lars"
            found.append(_RESNET[optimizer])
        return found

    return sections


def wanted_keys() -> frozenset[str]:
    """All keys that a rule of any round looks at."""
    own = [section for _, section in (*_CLOSED.values(), *_OPEN.values())]
    named = ("submission_benchmark", "gradient_accumulation_steps")
    return frozenset(named).union(*map(_common, ROUNDS), *own, *_RESNET.values())
