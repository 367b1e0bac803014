"""What the logs of each benchmark must hold in the closed division."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from director.mlperf.training.compliance import Check, Rule, Section, Seen
from director.mlperf.training.rule_checks import (
    COUNT,
    EPOCH,
    NOT_NEGATIVE,
    POSITIVE,
    SAMPLES,
    SHARE,
    fixed,
    is_whole,
    once,
    target,
    to_seen,
    value,
)
from director.phases.sources.mllog import Entry

_ADAMW_8K = {  # llama31 and gpt_oss
    **once("global_batch_size opt_base_learning_rate opt_end_learning_rate opt_learning_rate_warmup_steps"),
    **once("gradient_accumulation_steps", POSITIVE),
    **fixed(
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
SHORT_LLM = {
    **_ADAMW_8K,
    **once(
        "opt_learning_rate_decay_steps",
        to_seen(lambda value, seen: value == 1_200_000 - seen["opt_learning_rate_warmup_steps"]),
    ),
    **fixed(eval_samples=1024, max_steps=1_200_000),
}
LLAMA31_405B = {
    **_ADAMW_8K,
    **once("opt_learning_rate_decay_steps"),
    **once("opt_base_learning_rate", to_seen(lambda v, seen: v * 1152 == seen["global_batch_size"] * 8e-5)),
    **fixed(eval_samples=5760, init_checkpoint_step=0),
    **target(SAMPLES, lambda value: 0.0 < value <= 5.6),
}


def _decay_405b(value: Any, seen: Seen) -> bool:
    if "opt_learning_rate_warmup_steps" not in seen:
        return False
    batch = seen["global_batch_size"]
    return bool(value == math.ceil(1_200_000 * 1152 / batch) - math.ceil(8000 * 1152 / batch))


GPT3 = {
    **once("global_batch_size opt_end_learning_rate opt_learning_rate_decay_steps opt_learning_rate_warmup_steps"),
    **once("eval_samples"),
    **once("opt_base_learning_rate", value(lambda value: value in (2e-5, 3e-5))),
    **once("gradient_accumulation_steps init_checkpoint_step", POSITIVE),
    **fixed(
        max_sequence_length=2048,
        opt_name="adam",
        opt_learning_rate_decay_schedule="cosine with linear warmup",
        opt_adam_beta_1=0.9,
        opt_adam_beta_2=0.95,
        opt_adam_epsilon=1e-8,
        opt_gradient_clip_norm=1.0,
    ),
    **target(EPOCH, lambda value: 2.6 < value <= 2.69),
}
_IMAGE_ADAMW = {  # stable_diffusion and flux1
    "global_batch_size": Rule(once=False, each=(NOT_NEGATIVE,)),
    **once("opt_base_learning_rate opt_learning_rate_warmup_steps", NOT_NEGATIVE),
    **fixed(opt_name="adamw", opt_adamw_beta_1=0.9, opt_adamw_epsilon=1e-08),
}
_FLUX1 = {
    **_IMAGE_ADAMW,
    **fixed(evaluation_frequency=262144, opt_adamw_beta_2=0.95, opt_adamw_weight_decay=0.1, opt_gradient_clip_norm=1.0),
    **target(SAMPLES, lambda value: 0.0 < value <= 0.586),
}
_BOTH_SCORES = (
    value(lambda value: "FID" in value),
    value(lambda value: "CLIP" in value),
    value(lambda value: SAMPLES in value),
)


def joint_accuracy(reached: Callable[[Any], bool]) -> dict[str, Rule]:
    """Of lines made by `with_joint_accuracy`."""
    return {JOINT: Rule(least=2, once=False, each=_BOTH_SCORES, reached=value(reached))}


JOINT = "aggregated_eval_accuracy"


def with_joint_accuracy(entries: Sequence[Entry]) -> list[Entry]:
    """Add, after all, a line for each samples_count: the values of the metrics that were taken at it."""
    joint: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        if entry.key == "eval_accuracy" and isinstance(entry.metadata, dict) and "metric" in entry.metadata:
            count = str(entry.metadata.get(SAMPLES))
            joint.setdefault(count, {SAMPLES: count})[str(entry.metadata["metric"])] = entry.value
    return [*entries, *(Entry(JOINT, 0.0, values, {}) for values in joint.values())]


def _power_of_2_times(unit: float) -> Check:
    return value(lambda value: is_whole(math.log2(value / unit)))


RESNET = {
    "sgd": {
        **once("sgd_opt_base_learning_rate", value(lambda value: is_whole(value / 0.001))),
        **once("sgd_opt_learning_rate_decay_poly_power sgd_opt_learning_rate_decay_steps sgd_opt_momentum"),
        **once("model_bn_span opt_learning_rate_warmup_epochs"),
        **once("sgd_opt_weight_decay", _power_of_2_times(0.0001)),
        **fixed(sgd_opt_end_learning_rate=0.0001),
    },
    "lars": {
        **once("lars_opt_base_learning_rate lars_opt_learning_rate_decay_steps lars_opt_learning_rate_warmup_epochs"),
        **once("lars_opt_momentum"),
        **once("lars_opt_weight_decay", _power_of_2_times(0.0001)),
        **fixed(lars_opt_end_learning_rate=0.0001, lars_opt_learning_rate_decay_poly_power=2, lars_epsilon=0.0),
    },
}
_GNN = {
    **once("global_batch_size", POSITIVE),
    **once("opt_base_learning_rate", NOT_NEGATIVE),
    **fixed(opt_name="adam"),
    **target(EPOCH, lambda value: 0.72 <= value < 1.0),
}
_DETECTION = {  # ssd and retinanet
    **once("global_batch_size"),
    **once("opt_base_learning_rate opt_learning_rate_warmup_epochs opt_learning_rate_warmup_factor", NOT_NEGATIVE),
    **fixed(opt_name="adam", opt_weight_decay=0.0),
    **target(EPOCH, lambda value: 0.340 <= value < 1.0),
}
DEEPSEEK = {
    **once("global_batch_size", value(lambda value: value >= 15360)),
    **once("max_steps"),
    **once(
        "opt_base_learning_rate",
        to_seen(lambda v, seen: abs(v - 2.4e-05 * (seen["global_batch_size"] / 16384) ** 0.5) < 1e-9),
    ),
    **once(
        "opt_learning_rate_decay_steps",
        to_seen(lambda value, seen: value == 12000 - seen["opt_learning_rate_warmup_steps"]),
    ),
    **once("gradient_accumulation_steps", POSITIVE),
    **fixed(
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
    **target(SAMPLES, lambda value: 0.0 < value <= 3.6),
}


def _first_eval_deepseek(entry: Entry, seen: Seen) -> bool:
    batch = seen["global_batch_size"]
    return bool(int(entry.metadata[SAMPLES]) == batch * math.floor(42 + 24576 / batch))


_DLRM4_SAMPLES = 2290835423


def _dlrm4_interval(batch: Any) -> Any:
    """Training samples between evaluations: a thousandth of the data set, in whole batches."""
    return max(1, math.ceil(0.001 * _DLRM4_SAMPLES / batch)) * batch


def _first_eval_dlrm4(entry: Entry, seen: Seen) -> bool:
    batch = seen["global_batch_size"]
    interval = _dlrm4_interval(batch)
    earliest = math.floor((4480 * batch + 135331840) / 3)
    return bool(int(entry.metadata[SAMPLES]) == math.ceil(earliest / interval) * interval)


def dlrm4_rate(value: Any, seen: Seen) -> bool:
    """Half to one and a half times what the reference uses for this batch size."""
    unit = 1e-6 * seen["global_batch_size"] / 8192
    return bool(0.5 * unit * (1 - 1e-9) <= value <= 1.5 * unit * (1 + 1e-9))


DLRM4 = {
    **once("global_batch_size", COUNT),
    **once("opt_base_learning_rate", to_seen(dlrm4_rate)),
    **once("opt_sparse_base_learning_rate", to_seen(lambda value, seen: value == seen["opt_base_learning_rate"])),
    **fixed(
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
    **target(
        SAMPLES,
        lambda value: value >= 0.75,
        "eval_accuracy",
        lambda entry, seen: entry.metadata[SAMPLES] % _dlrm4_interval(seen["global_batch_size"]) == 0,
        SHARE,
        first=_first_eval_dlrm4,
    ),
}


def _next_eval_qwen(entry: Entry, seen: Seen) -> bool:
    """Evaluations come every batch from the first one on that the batch size allows."""
    batch = seen["global_batch_size"]
    expected = seen.setdefault("next eval", batch * math.ceil(2.5 + 3840 / batch))
    if entry.metadata[SAMPLES] != expected:
        return False
    seen["next eval"] = expected + batch
    return True


QWEN = {
    **once("global_batch_size num_prompts_per_step", COUNT),
    **once("max_steps"),
    **once(
        "opt_base_learning_rate",
        to_seen(lambda value, seen: abs(value - 1e-6 * (seen["global_batch_size"] / 256) ** 0.5) < 1e-9),
    ),
    **once(
        "opt_gradient_clip_norm",
        to_seen(lambda value, seen: abs(value - 0.125 * (256 / seen["global_batch_size"]) ** 0.5) < 1e-9),
    ),
    **once(
        "num_generations_per_prompt",
        to_seen(lambda v, seen: v == 16 and seen["global_batch_size"] == seen["num_prompts_per_step"] * v),
    ),
    **fixed(
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
    **target(SAMPLES, lambda value: value > 0.69, "eval_accuracy", _next_eval_qwen, SHARE),
}
CLOSED: dict[str, tuple[str, Section]] = {  # the rounds, and the rules where they do not change
    "bert": (
        "4.0 4.1 5.0",
        {
            **once("global_batch_size opt_base_learning_rate opt_lamb_epsilon opt_learning_rate_training_steps"),
            **once("opt_learning_rate_warmup_steps num_warmup_steps start_warmup_step opt_lamb_beta_1"),
            **once("opt_lamb_beta_2 opt_lamb_weight_decay_rate"),
            **target(EPOCH, lambda value: 0.720 <= value < 1.0),
        },
    ),
    "dlrm_dcnv2": (
        "4.0 4.1 5.0 5.1 6.0",
        {
            **once("global_batch_size opt_base_learning_rate"),
            **fixed(
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
            **target(EPOCH, lambda value: 0.80275 <= value <= 1.0),
        },
    ),
    "resnet": (
        "4.0",
        {
            **once("global_batch_size", POSITIVE),
            **once("opt_name", value(lambda value: value in RESNET)),
            **target(EPOCH, lambda value: 0.7590 <= value < 1.0),
        },
    ),
    "ssd": ("4.0 4.1", _DETECTION),
    "retinanet": ("5.0 5.1", _DETECTION),
    "unet3d": (
        "4.0",
        {
            **once("global_batch_size opt_name opt_base_learning_rate opt_learning_rate_decay_boundary_epochs"),
            **once("opt_learning_rate_decay_factor opt_weight_decay seed opt_momentum oversampling"),
            **once("training_input_shape validation_input_shape validation_overlap"),
            **once("opt_learning_rate_warmup_epochs", NOT_NEGATIVE),
            **fixed(train_samples=168, eval_samples=42),
            **target(EPOCH, lambda value: value >= 0.908),
        },
    ),
    "gpt3": ("4.0 4.1", GPT3),
    "gnn": ("4.0 4.1", _GNN),
    "rgat": ("5.0 5.1", _GNN),
    "llama2_70b_lora": (
        "4.0 4.1 5.0 5.1 6.0 6.1",
        {
            **once("global_batch_size opt_base_learning_rate opt_learning_rate_training_steps lora_alpha"),
            **once("opt_gradient_clip_norm opt_adamw_weight_decay gradient_accumulation_steps"),
            **fixed(lora_rank=16),
            **target(SAMPLES, lambda value: 0.0 < value <= 0.925),
        },
    ),
    "stable_diffusion": (
        "4.0 4.1 5.0",
        {
            **_IMAGE_ADAMW,
            **fixed(opt_adamw_beta_2=0.999, opt_adamw_weight_decay=0.01),
            **joint_accuracy(lambda value: 0.0 <= value["FID"] <= 90.0 and 0.15 <= value["CLIP"] <= 1.0),
        },
    ),
    "llama31_405b": ("5.0 5.1 6.0", LLAMA31_405B),
    "llama31_8b": ("5.1 6.0 6.1", {**SHORT_LLM, **target(SAMPLES, lambda value: 0.0 < value <= 3.3)}),
    "gpt_oss_20b": ("6.0 6.1", {**SHORT_LLM, **target(SAMPLES, lambda value: 0.0 < value <= 3.34)}),
    "flux1": ("5.1 6.0 6.1", _FLUX1),
    "deepseekv3_671b": ("6.0 6.1", DEEPSEEK),
    "dlrmv4": ("6.1", DLRM4),
    "qwen35_397b_grpo": ("6.1", QWEN),
}
CLOSED_CHANGED: dict[tuple[str, str], dict[str, Rule]] = {
    **dict.fromkeys(
        (("llama31_405b", "5.1"), ("llama31_405b", "6.0")),
        once("opt_learning_rate_decay_steps", to_seen(_decay_405b)),
    ),
    ("flux1", "6.1"): once(
        "evaluation_frequency",
        to_seen(lambda v, seen: v == math.ceil(262144 / seen["global_batch_size"]) * seen["global_batch_size"]),
    ),
    ("deepseekv3_671b", "6.1"): target(
        SAMPLES, lambda value: 0.0 < value <= 3.6, "eval_accuracy", first=_first_eval_deepseek
    ),
}
