"""What an audit finds, and the rules that it knows. docs/mlperf/audit.md shows the same table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_TRAINING = "training_policies, power_measurement.adoc"
_SUMMARIZER = "mlcommons/logging, result_summarizer"
_INFERENCE = "inference_policies, power_measurement.adoc"
_CHECKER = "mlcommons/power-dev, compliance/check.py"
_FLOW = "mlcommons/power-dev, ptd_client_server"
_PRACTICE = "measurement practice; docs/formulas/coverage.md"


class Rule(NamedTuple):
    """A rule: how bad it is as a rule, what it is about, and where it comes from."""

    severity: Severity
    family: str
    meaning: str
    reference: str


RULES: dict[str, Rule] = {
    # readings of any log
    "rate": Rule("error", "readings", "the usual step between readings is longer than 1 s", f"{_TRAINING} §3.4"),
    "uneven": Rule("warning", "readings", "steps of 1.5 to 2.5 times the usual one", f"{_TRAINING} §3.4"),
    "gap": Rule(
        "warning", "readings", "a step above 2.5 times the usual one; an error above 1 % of the run", _PRACTICE
    ),
    "stall": Rule("warning", "readings", "a gap, then readings in a burst: the logger was held up", _PRACTICE),
    "frozen": Rule(
        "warning", "readings", "60 or more readings in a row with one value, in a log that varies", _PRACTICE
    ),
    "repeated-stamps": Rule(
        "warning", "readings", "readings with the same time; the official sum gives all but one no weight", _SUMMARIZER
    ),
    "backward-stamps": Rule(
        "warning", "readings", "times go back; round 4.0 counts negative durations, later rounds sort", _SUMMARIZER
    ),
    "non-positive": Rule(
        "error",
        "readings",
        "readings of 0 W or less (−1 rejected, −2 missed); a warning outside run and load, and in ranging",
        _PRACTICE,
    ),
    "sixty-samples": Rule("error", "readings", "fewer than 60 readings in the log", f"{_TRAINING} §3.5"),
    "unreadable-lines": Rule("error", "readings", "lines that cannot be read", _SUMMARIZER),
    # windows of training
    "run-times": Rule(
        "error", "window", "run_start or run_stop is missing, or they are out of order", "training_rules.adoc"
    ),
    "short-run": Rule("note", "window", "the run takes less than 60 s: edges weigh much", f"{_TRAINING} §3.5"),
    "window-lines": Rule("error", "window", "no power_measurement_start or …_stop, or stop is not later", _SUMMARIZER),
    "window-covers-run": Rule(
        "error", "window", "power is logged from after run_start, or only until before run_stop", f"{_TRAINING} §3.5"
    ),
    "window-dilutes": Rule(
        "warning",
        "window",
        "mean power of the whole window, which counts, is over 1 % off that of the run; an error over 5 %",
        f"{_TRAINING} §3.5 (a small fraction of untimed operations), §3.6",
    ),
    # clocks
    "clock-offset": Rule(
        "error",
        "clocks",
        "a log lies beside the run or load: how many hours fit; a warning for daylight saving",
        _CHECKER,
    ),
    "clock-lag": Rule(
        "warning", "clocks", "the power of one node runs 2 s or more behind or before the others", _PRACTICE
    ),
    "clock-skew": Rule("error", "clocks", "phases of client and server are more than 0.8 s apart", _CHECKER),
    "stamp-far-off": Rule("note", "clocks", "the stamp of a stated power is more than a day off the run", _PRACTICE),
    # logs of training
    "power-logs-missing": Rule(
        "error", "logs", "a run without power logs, or with a log that cannot be read", f"{_TRAINING} §3.3"
    ),
    "node-missing": Rule(
        "error",
        "logs",
        "fewer node logs than the system has nodes, than other runs have, or a number left out",
        f"{_TRAINING} §3.1.2",
    ),
    "switch-missing": Rule("error", "logs", "several nodes, and no power of the interconnect", f"{_TRAINING} §3.1.3"),
    "switch-ignored": Rule(
        "error", "logs", "a switch was measured, and its energy does not count: only an estimate does", _SUMMARIZER
    ),
    "stray-power": Rule("note", "logs", "power logs of a run that has no result", f"{_TRAINING} §3.3"),
    # conversion
    "efficiency-absent": Rule(
        "warning", "conversion", "no conversion_eff: readings count as DC, as they are", f"{_TRAINING} §3.2"
    ),
    "efficiency-implausible": Rule(
        "warning",
        "conversion",
        "conversion_eff outside 0.80 … 0.98; an error outside 0 … 1",
        f"{_TRAINING} §3.2, 80 PLUS",
    ),
    "efficiency-differs": Rule(
        "warning", "conversion", "logs of a run state different efficiencies", f"{_TRAINING} §3.2"
    ),
    # sessions of inference
    "load-unknown": Rule("error", "stages", "power_begin and power_end of a load cannot be read", f"{_INFERENCE} §5.7"),
    "samples-cover-load": Rule(
        "error", "stages", "the first or last 1.5 s of the load, or more, have no sample", f"{_INFERENCE} §5.7"
    ),
    "short-duration": Rule(
        "error", "stages", "the load of testing takes less than 600 s", "inference_rules.adoc, scenarios"
    ),
    "durations-differ": Rule("warning", "stages", "ranging and testing are more than 5 % apart", _CHECKER),
    "testing-below-ranging": Rule("error", "stages", "testing draws at least 5 % less than ranging", _CHECKER),
    # the meter
    "uncertainty": Rule(
        "error",
        "meter",
        "samples of the load above 1 %, recomputed from ranges and samples",
        f"{_CHECKER}; docs/mlperf/audit.md",
    ),
    "uncertainty-reported": Rule("error", "meter", "PTDaemon's own mean is above 1 %, or it could not tell", _CHECKER),
    "uncertainty-warned": Rule(
        "error", "meter", "PTDaemon warned of more than 1 %, or could not tell, within the load", _CHECKER
    ),
    "uncertainty-disagrees": Rule(
        "warning", "meter", "PTDaemon's figures are not those of ranges and samples", "docs/mlperf/audit.md"
    ),
    "uncertainty-not-recomputed": Rule(
        "note", "meter", "no formula is known for the meter, or no range", "docs/mlperf/audit.md"
    ),
    "uncertainty-not-activated": Rule(
        "error", "meter", "ptd_logs.txt does not say that the check was activated", _CHECKER
    ),
    "auto-range": Rule("error", "meter", "testing ran with automatic ranges", _FLOW),
    "range-clipping": Rule(
        "warning",
        "meter",
        "volts or amperes above the range; an error above 130 %, or where PTDaemon says so",
        "Yokogawa WT300E manual",
    ),
    "ptd-errors": Rule("error", "meter", "PTDaemon's log has errors outside ranging", _CHECKER),
    "ptd-version": Rule("error", "meter", "PTDaemon's version is not accepted", _CHECKER),
    "meter-model": Rule("error", "meter", "the meter is not accepted", _CHECKER),
    # files
    "checksum": Rule("error", "files", "a file is not what client.json and server.json recorded", _CHECKER),
    "file-missing": Rule("error", "files", "a required file is missing, or cannot be read", _CHECKER),
    "scripts-changed": Rule("error", "files", "the measurement scripts are not the official ones", _CHECKER),
}


@dataclass(frozen=True)
class Finding:
    """One rule at one place. Many faults of a kind in a file are one finding, shown by the worst of them."""

    rule: str
    severity: Severity
    text: str  # what is wrong, in words
    file: str
    line: int | None  # from 1; None: the finding is about no single line
    value: float | str | None  # what was found there
    count: int = 1  # places in the file

    @property
    def reference(self) -> str:
        """Where the rule comes from."""
        return RULES[self.rule].reference


def finding(
    rule: str,
    text: str,
    file: Path,
    *,
    line: int | None = None,
    value: float | str | None = None,
    count: int = 1,
    severity: Severity | None = None,
) -> Finding:
    """A finding with the rule's severity, unless another is given."""
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)  # JSON has no number for it
    return Finding(rule, severity or RULES[rule].severity, text, str(file), line, value, count)
