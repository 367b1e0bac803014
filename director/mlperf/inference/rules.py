"""How the official submission checker of each round makes power and performance figures.

Read from the tags v1.0.1 … v6.0.0pre of mlcommons/inference and from its newest code; of round 5.1 from v5.1.1. The
formulas are written down in docs/mlperf/inference-scores.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from director.mlperf.inference.detail_log import DetailLog

_SCENARIOS = ("Offline", "Server", "Interactive", "SingleStream", "MultiStream")
_NS_PER_MS = 1_000_000
_MS_PER_S = 1000
_STREAMS = 8  # samples per query of MultiStream


@dataclass(frozen=True)
class Rules:
    """What differs between rounds."""

    round: str
    keys: Mapping[str, str]  # of the performance figure, by the scenario of the log
    token_keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # the same, by benchmark
    time_zones: bool = False  # adds those of client.json and server.json
    every_line: bool = False  # reads every line of spl.txt, also one that does not begin with "Time"
    positive_only: bool = True  # leaves out samples of 0 W and less
    query_count: bool = True  # has result_query_count; without, it is worked out from the rate
    millijoules: bool = True  # else joules
    efficiency: bool = True  # prints one
    watts: frozenset[str] = frozenset(("Offline", "Server"))  # scenarios whose power figure is the average watts
    names: Mapping[str, str] = field(default_factory=dict)  # of benchmarks, by what folders may call them
    in_seconds: frozenset[str] = frozenset()  # benchmarks whose latencies are in s, not ms

    def benchmark(self, folder: str, more_names: Mapping[str, str]) -> str:
        """The official name of a benchmark; `more_names`: what a submitter in the open division calls them."""
        return self.names.get(folder) or more_names.get(folder) or folder


@dataclass(frozen=True)
class Performance:
    """The performance figure of a run; `value` None: there is none, `why` says why."""

    key: str
    value: float | None
    unit: str
    inferred: bool = False  # the log is of another scenario
    why: str = ""


@dataclass(frozen=True)
class PowerMetric:
    """The official power figure; `value` None: there is none, `why` says why."""

    value: float | None
    unit: str
    efficiency: float | None = None
    efficiency_unit: str = ""
    why: str = ""


_OLD_KEYS = {
    "Offline": "result_samples_per_second",
    "Server": "result_scheduled_samples_per_sec",
    "SingleStream": "result_90.00_percentile_latency_ns",
    "MultiStream": "effective_samples_per_query",
}
_EARLY_STOPPING = {
    **_OLD_KEYS,
    "SingleStream": "early_stopping_latency_ss",
    "MultiStream": "early_stopping_latency_ms",
}
_NEW_KEYS = {**_EARLY_STOPPING, "Server": "result_completed_samples_per_sec"}
_TOKENS = {"Offline": "result_tokens_per_second", "Server": "result_completed_tokens_per_second"}
_INFERRED = {"Offline": "result_inferred_tokens_per_second", "Server": "result_inferred_completed_tokens_per_second"}


def _benchmarks(keys: Mapping[str, str], names: str) -> dict[str, Mapping[str, str]]:
    return dict.fromkeys(names.split(), keys)


_LLAMA2 = "llama2-70b-99 llama2-70b-99.9"
_TOKENS_4_1 = {**_benchmarks(_TOKENS, f"{_LLAMA2} mixtral-8x7b"), **_benchmarks(_INFERRED, "gptj-99 gptj-99.9")}
_TOKENS_5_0 = {
    **_TOKENS_4_1,
    **_benchmarks(_TOKENS, "llama2-70b-interactive-99 llama2-70b-interactive-99.9 llama3.1-405b"),
}
_TOKENS_5_1 = {
    **_benchmarks(_TOKENS, f"{_LLAMA2} mixtral-8x7b llama3.1-8b llama3.1-405b deepseek-r1"),
    "llama3.1-8b-edge": {
        "Offline": "result_tokens_per_second",
        "SingleStream": "result_90.00_percentile_latency_ns",
    },
    "whisper": {"Offline": "result_tokens_per_second"},
}
_TOKENS_6_0 = {**_TOKENS_5_1, **_benchmarks(_TOKENS, "gpt-oss-120b")}
_NAMES_5_0 = {"llama3_1-405b": "llama3.1-405b"}
_NAMES_5_1 = {**_NAMES_5_0, "llama3_1-8b": "llama3.1-8b", "llama3_1-8b-edge": "llama3.1-8b-edge"}
_V1_0 = Rules("1.0", _OLD_KEYS, {}, True, True, False, False, False, False)
_V2_0 = replace(_V1_0, round="2.0", keys=_EARLY_STOPPING, time_zones=False, query_count=True)
_V4_0 = Rules(
    "4.0",
    _EARLY_STOPPING,
    _benchmarks({"Offline": _TOKENS["Offline"], "Server": "result_completed_samples_per_sec"}, _LLAMA2),
)
_V5_1 = replace(
    _V4_0,
    round="5.1",
    keys=_NEW_KEYS,
    token_keys=_TOKENS_5_1,
    names=_NAMES_5_1,
    watts=frozenset(("Offline", "Server", "Interactive")),
)
_V6_0 = replace(_V5_1, round="6.0", token_keys=_TOKENS_6_0, in_seconds=frozenset(("wan-2.2-t2v-a14b",)))
RULES: dict[str, Rules] = {
    rules.round: rules
    for rules in (
        _V1_0,
        _V2_0,
        replace(_V2_0, round="2.1"),
        replace(_V2_0, round="3.0", millijoules=True),
        replace(_V2_0, round="3.1", millijoules=True, positive_only=True),
        _V4_0,
        replace(_V4_0, round="4.1", keys=_NEW_KEYS, token_keys=_TOKENS_4_1),
        replace(_V4_0, round="5.0", keys=_NEW_KEYS, token_keys=_TOKENS_5_0, names=_NAMES_5_0),
        _V5_1,
        _V6_0,
        replace(_V6_0, round="6.1", keys={**_NEW_KEYS, "Interactive": "result_completed_samples_per_sec"}),
    )
}


def usual_scenario(name: str) -> str:
    """A scenario as the rules spell it, from a folder's name; other text as it is."""
    return next((scenario for scenario in _SCENARIOS if scenario.lower() == name.lower()), name)


def performance(log: DetailLog, scenario: str, benchmark: str, rules: Rules) -> Performance:
    """The performance figure of a run in a folder of `scenario`."""
    of_log = str(log.get("effective_scenario"))
    key = rules.token_keys.get(benchmark, {}).get(of_log) or rules.keys.get(of_log, "")
    if not key:
        return Performance("", None, "", why=f"the log's scenario is {of_log}, for which round {rules.round} has none")
    value = log.number(key)
    if value is None:
        return Performance(key, None, _unit(key, scenario), why=f"the log has no number {key}")
    unit = _unit(key, scenario)
    if key.endswith("_ns") or key.startswith("early_stopping_latency"):
        value /= _NS_PER_MS
        if benchmark.lower() in rules.in_seconds:
            value, unit = value / _MS_PER_S, "s latency"
    if of_log == scenario or (of_log, scenario) == ("Server", "Interactive"):
        return Performance(key, value, unit)
    return _inferred(log, of_log, scenario, rules)


def _inferred(log: DetailLog, of_log: str, scenario: str, rules: Rules) -> Performance:
    """A figure of another scenario than the log's."""
    if (of_log, scenario) == ("SingleStream", "Offline"):
        key = "result_qps_without_loadgen_overhead"
        value = log.number(key)
        return Performance(key, value, "samples/s", True, "" if value is not None else f"the log has no {key}")
    if (of_log, scenario) == ("MultiStream", "Offline") and rules.round != "1.0":
        key = "result_mean_query_latency_ns"
        latency, samples = log.number(key), log.number("effective_samples_per_query")
        if latency and samples is not None:
            return Performance(key, samples * 1000 / (latency / _NS_PER_MS), "samples/s", True)
        return Performance(key, None, "samples/s", True, f"the log has no {key} or no effective_samples_per_query")
    if (of_log, scenario) == ("SingleStream", "MultiStream") and rules.round != "1.0":
        key = "early_stopping_latency_ms"
        latency = log.number(key)
        if latency is not None:
            return Performance(key, latency * _STREAMS / _NS_PER_MS, "ms latency", True)
        return Performance(key, None, "ms latency", True, f"the log has no {key}")
    why = f"round {rules.round} has no way from a log of {of_log} to {scenario or 'a scenario without a name'}"
    return Performance("", None, "", True, why)


def _unit(key: str, scenario: str) -> str:
    if "tokens" in key:
        return "tokens/s"
    if "latency" in key:
        return "ms latency"
    if key == "effective_samples_per_query":
        return "samples/query"
    return "samples/s" if scenario == "Offline" else "queries/s"


def power_metric(
    log: DetailLog, scenario: str, watts: float, seconds: float, result: Performance, rules: Rules
) -> PowerMetric:
    """The official power figure and efficiency, from the average watts, with operations in the checkers' order."""
    if scenario in rules.watts:
        of = result.unit.removesuffix("/s") if result.unit == "tokens/s" else "samples"
        if result.value is None or watts == 0:
            return PowerMetric(watts, "W", why=result.why)
        return PowerMetric(watts, "W", result.value / watts, f"{of}/J")
    if scenario not in ("SingleStream", "MultiStream"):
        return PowerMetric(
            None, "", why=f"round {rules.round} has no power figure for scenario {scenario or 'unknown'}"
        )
    count, why = _queries(log, scenario, seconds, rules)
    if count is None or count <= 0:
        return PowerMetric(None, "", why=why or f"{count} queries")
    joules = watts * seconds
    from_single = scenario == "MultiStream" and log.get("effective_scenario") == "SingleStream"
    if rules.millijoules:
        value = joules * _STREAMS * 1000 / count if from_single else joules * 1000 / count
    else:
        value = joules * _STREAMS / count if from_single and rules.query_count else joules / count
    samples = _STREAMS if scenario == "MultiStream" and rules.query_count else 1
    per = {"SingleStream": "stream", "MultiStream": "query"}[scenario] if rules.query_count else "sample"
    unit = f"{'mJ' if rules.millijoules else 'J'}/{per}"
    if value <= 0:
        return PowerMetric(value, unit, why="no energy")
    return PowerMetric(value, unit, samples * (1000 if rules.millijoules else 1) / value, "samples/J")


def _queries(log: DetailLog, scenario: str, seconds: float, rules: Rules) -> tuple[float | None, str]:
    """How many queries ran, and where that is not known why."""
    if rules.query_count:
        count = log.number("result_query_count")
        return (
            None if count is None else int(count)
        ), f"the log has no result_query_count, which round {rules.round} needs"
    if scenario == "SingleStream":
        rate = log.number("result_qps_with_loadgen_overhead")
        return (None if rate is None else rate * seconds), "the log has no result_qps_with_loadgen_overhead"
    queries, samples = log.number("generated_query_count"), log.number("generated_samples_per_query")
    if queries is None or samples is None:
        return None, "the log has no generated_query_count or no generated_samples_per_query"
    return queries * samples, ""
