"""What the official session checkers accept: facts of `compliance/check.py` of mlcommons/power-dev.

Of rounds 1.0, 2.0 and 2.1 it is that of the commits that mlcommons/inference used: 813b60b, f7b3b51 and e2baedb. From
3.0 on it is `power_checker.py` of the round's tag; that of v5.1 and later is the same as power-dev c4b3ad8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from director.mlperf.inference.script_checksums import (
    SOURCES_1_0,
    SOURCES_2_0,
    SOURCES_2_1,
    SOURCES_3_1,
    SOURCES_4_1,
    SOURCES_5_0,
    Sources,
)

_METERS_1_0 = {
    "YokogawaWT210": 8,
    "YokogawaWT500": 35,
    "YokogawaWT500_multichannel": 48,
    "YokogawaWT310": 49,
    "YokogawaWT330E": 52,
    "YokogawaWT330_multichannel": 77,
}
_METERS_2_0 = {**_METERS_1_0, "YokogawaWT310E": 49}
_METERS_2_1 = {**_METERS_2_0, "YokogawaWT330": 52}
_METERS_4_0 = {**_METERS_2_1, "YokogawaWT210_DC": 508, "YokogawaWT310_DC": 549, "YokogawaWT330_DC": 586}
_NO_UNCERTAINTY = "Can't evaluate uncertainty of this sample!"
_RANGING_ERRORS = (
    _NO_UNCERTAINTY,
    *(f"Bad {name} reading nan from " for name in ("watts", "amps", "pf", "volts")),
    "Current appears to be too high for set range",
)


@dataclass(frozen=True)
class CheckerVersion:
    """What differs between the checkers."""

    name: str
    rounds: tuple[str, ...]
    sources: tuple[Sources, ...]  # sets of the official scripts, any of which is accepted
    ptd_versions: tuple[str, ...]
    meters: Mapping[str, int]  # PTDaemon's names and device numbers
    phase_tolerance_s: float
    usual_ranging_errors: tuple[str, ...] = (_NO_UNCERTAINTY,)  # beginnings of errors that ranging brings along
    durations_apart: float | None = None  # by which share ranging and testing may differ; None: newer checks instead
    # Newer checkers add their tolerance in ms to times in s; so this is left out at both ends of the load, where they
    # look for warnings, of which that of the uncertainty then fails. None: warnings only warn.
    warning_margin_s: float | None = None
    below_tolerance: bool = False  # which is not to be reached
    every_line: bool = False  # reads every line of spl.txt, also one that does not begin with "Time"
    first: bool = False  # the checker of round 1.0, which differs in most checks
    analyzer_list: bool = False  # ptd_config is a list, and ranges may be restored by the fourth command

    @property
    def ptd_log_in_zone(self) -> bool:
        """Whether times of PTDaemon's log are taken to be in the zone of server.json."""
        return self.durations_apart is not None


_V1_0 = CheckerVersion(
    name="1.0",
    rounds=("1.0",),
    sources=SOURCES_1_0,
    ptd_versions=("1.9.1", "1.9.2"),
    meters=_METERS_1_0,
    phase_tolerance_s=0.2,
    durations_apart=0.05,
    below_tolerance=True,
    first=True,
)
_V2_0 = replace(_V1_0, name="2.0", rounds=("2.0",), sources=SOURCES_2_0, meters=_METERS_2_0, first=False)
_V2_1 = replace(
    _V2_0,
    name="2.1",
    rounds=("2.1",),
    sources=SOURCES_2_1,
    meters=_METERS_2_1,
    phase_tolerance_s=0.5,
    below_tolerance=False,
)
_V3_0 = replace(
    _V2_1,
    name="3.0",
    rounds=("3.0",),
    ptd_versions=("1.10.0",),
    phase_tolerance_s=1.0,
    durations_apart=0.15,
)
_V3_1 = CheckerVersion(
    name="3.1",
    rounds=("3.1",),
    sources=SOURCES_3_1,
    ptd_versions=("1.10.0",),
    meters=_METERS_2_1,
    phase_tolerance_s=0.5,
    usual_ranging_errors=_RANGING_ERRORS,
    warning_margin_s=500.0,
    every_line=True,
)
_V4_1 = replace(
    _V3_1,
    name="4.1",
    rounds=("4.0", "4.1"),
    sources=SOURCES_4_1,
    meters=_METERS_4_0,
    phase_tolerance_s=0.8,
    warning_margin_s=800.0,
    every_line=False,
)
_V5_0 = replace(_V4_1, name="5.0", rounds=("5.0",), sources=SOURCES_5_0, ptd_versions=("1.11.1",))
_V6_1 = replace(_V5_0, name="6.1", rounds=("5.1", "6.0", "6.1"), analyzer_list=True)
CHECKERS = (_V1_0, _V2_0, _V2_1, _V3_0, _V3_1, _V4_1, _V5_0, _V6_1)
PTD_VERSIONS = tuple(dict.fromkeys(version for checker in CHECKERS for version in checker.ptd_versions))


def checker_of_round(name: str) -> CheckerVersion | None:
    """The checker of a round; None: it is not known here."""
    return next((checker for checker in CHECKERS if name in checker.rounds), None)


def checker_that_fits(
    ptd_version: str, folder_round: str, server: Mapping[str, Any] | None = None
) -> tuple[CheckerVersion, str]:
    """The checker that accepts a session's PTDaemon, or else that of the round which a folder names, and why.

    Where several accept it: that of the folder's round, else one that accepts its scripts, too, else the newest.

    Args:
        ptd_version: of PTDaemon, such as "1.10.0".
        folder_round: that a folder names, such as "4.1"; "": none.
        server: what server.json says.
    """
    named = checker_of_round(folder_round)
    accepting = [checker for checker in CHECKERS if ptd_version in checker.ptd_versions]
    if not accepting:
        return (named, "a folder's name") if named is not None else (CHECKERS[-1], "the newest")
    why = f"its PTDaemon {ptd_version}"
    if len(accepting) == 1 or server is None:
        return accepting[-1], why
    if named in accepting:
        return named, f"{why}, and a folder's name"
    scripts, config = server.get("sources"), server.get("ptd_config")
    fitting = [checker for checker in accepting if scripts in checker.sources]
    of_form = [checker for checker in fitting or accepting if checker.analyzer_list == isinstance(config, list)]
    return (of_form or fitting or accepting)[-1], f"{why}, and its scripts" if fitting else why
