"""What the logs of each benchmark must hold in the open division."""

from __future__ import annotations

from director.mlperf.training.closed_rules import (
    DEEPSEEK,
    DLRM4,
    GPT3,
    LLAMA31_405B,
    QWEN,
    SHORT_LLM,
    dlrm4_rate,
    joint_accuracy,
)
from director.mlperf.training.compliance import Rule, Section
from director.mlperf.training.rule_checks import COUNT, EPOCH, SAMPLES, SHARE, fixed, once, target, to_seen


def _free(section: Section, *kept: str) -> dict[str, Rule]:
    """The same keys with any values, but for the kept ones."""
    return {key: rule if key in kept else rule._replace(each=()) for key, rule in section.items()}


def _below_one(at: str) -> Section:
    return target(at, lambda value: value < 1.0)


OPEN: dict[str, tuple[str, Section]] = {
    "bert": ("4.0 4.1 5.0", _below_one(EPOCH)),
    "dlrm_dcnv2": ("4.0 4.1 5.0 5.1 6.0", target(EPOCH, lambda value: value <= 1.0)),
    **dict.fromkeys(("resnet", "unet3d"), ("4.0", _below_one(EPOCH))),
    **dict.fromkeys(("ssd", "gnn"), ("4.0 4.1", _below_one(EPOCH))),
    **dict.fromkeys(("retinanet", "rgat"), ("5.0 5.1", _below_one(EPOCH))),
    "gpt3": ("4.0 4.1", GPT3),
    "llama2_70b_lora": ("5.0 5.1 6.0 6.1", _below_one(SAMPLES)),
    "stable_diffusion": ("4.0 4.1 5.0", joint_accuracy(lambda value: value["FID"] >= 0.0 and value["CLIP"] <= 1.0)),
    "llama31_405b": (
        "5.0 5.1 6.0",
        _free(
            LLAMA31_405B,
            *("max_sequence_length", "opt_name", "gradient_accumulation_steps", "eval_samples", "eval_accuracy"),
            "init_checkpoint_step",
        ),
    ),
    "llama31_8b": ("5.1 6.0 6.1", _below_one(SAMPLES)),
    "gpt_oss_20b": (
        "6.0 6.1",
        {
            **_free(SHORT_LLM, "max_sequence_length", "opt_name"),
            **target(SAMPLES, lambda value: 0.0 < value <= 3.34),
        },
    ),
    "flux1": ("5.1 6.0 6.1", target(SAMPLES, lambda value: 0.0 < value <= 0.586, "averaged_validation_loss")),
    "deepseekv3_671b": (
        "6.0 6.1",
        _free(
            DEEPSEEK,
            *("global_batch_size", "max_sequence_length", "opt_name", "gradient_accumulation_steps"),
            *("eval_samples", "eval_accuracy"),
        ),
    ),
    "dlrmv4": (
        "6.1",
        {
            **_free(DLRM4, "global_batch_size", "train_samples", "eval_samples", "opt_base_learning_rate"),
            **once("gradient_accumulation_steps max_sequence_length", COUNT),
            **once("opt_sparse_base_learning_rate", to_seen(dlrm4_rate)),
            **target(SAMPLES, lambda value: value >= 0.75, "eval_accuracy", SHARE),
        },
    ),
    "qwen35_397b_grpo": (
        "6.1",
        {
            **_free(QWEN, *("global_batch_size", "max_sequence_length", "eval_samples"), "init_checkpoint_step"),
            **fixed(opt_name="adamw"),
            **once("num_prompts_per_step num_generations_per_prompt", COUNT),
            **target(SAMPLES, lambda value: value > 0.69, "eval_accuracy", SHARE),
        },
    ),
}
OPEN_AT_EPOCH = (("llama2_70b_lora", "llama31_405b", "llama31_8b"), ("5.0", "5.1"))  # where evaluations are counted so
