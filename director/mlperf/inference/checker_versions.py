"""What the three official session checkers accept: facts of `compliance/check.py` of mlcommons/power-dev.

1.0 is commit 813b60b, which mlcommons/inference v1.0.1 uses; 4.1 is `power_checker.py` of its tags v4.0 and v4.1; 6.1
is that of v5.1 and later, the same as power-dev c4b3ad8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

_SOURCES_1_0 = {
    "client.py": "d1e75cb4b26101220ebd242e584cf3ca5d8f1996",
    "lib/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "lib/client.py": "d42bebf5b74cb6ff3997e2a6c68422afac111a28",
    "lib/common.py": "b0bad80d8fa328a7636027d4d66ff453f8dd7889",
    "lib/external/ntplib.py": "4da8f970656505a40483206ef2b5d3dd5e81711d",
    "lib/server.py": "2ed36471c7af565d6c8438b2134edad1d7ddf166",
    "lib/source_hashes.py": "4cedff274c661cb1504052018fd4f00dfbf624ef",
    "lib/summary.py": "0db15d783907aa92038281af4e465545c0648ddb",
    "lib/time_sync.py": "76051226ec89287839723352f4162aaa24e0546a",
    "server.py": "99e1310e3f76292aef1b8792ce6b8c82f1d44d8b",
    "tests/unit/test_server.py": "64f11775bfed35232a0e8bb9593c0ff992432c59",
    "tests/unit/test_source_hashes.py": "cb41a7261eaf7d94ba5c0aae9c523174f6204be3",
}
_SOURCES_4_1 = {
    "__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "client.py": "33ca4f26368777ac06e01f9567b714a4b8063886",
    "lib/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "lib/client.py": "ac2aa093c8e8bbc9569b9e2a3471bc64e58a2258",
    "lib/common.py": "611d8b29633d331eb19c9455ea3b5fa3284ed6df",
    "lib/external/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "lib/external/ntplib.py": "4da8f970656505a40483206ef2b5d3dd5e81711d",
    "lib/server.py": "99303c836c683aa9017ec565104e636161d02acb",
    "lib/source_hashes.py": "60a2e02193209e8d392803326208d5466342da18",
    "lib/summary.py": "aa92f0a3f975eecd44d3c0cd0236342ccc9f941d",
    "lib/time_sync.py": "80894ef2389e540781ff78de94db16aa4203a14e",
    "server.py": "c3f90f2f7eeb4db30727556d0c815ebc89b3d28b",
    "tests/unit/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "tests/unit/test_server.py": "948c1995d4008bc2aa6c4046a34ffa3858d6d671",
    "tests/unit/test_source_hashes.py": "00468a2907583c593e6574a1f6b404e4651c221a",
}
_SOURCES_6_1 = {
    **_SOURCES_4_1,
    "lib/server.py": "9bc9a3b6b9b716520658ac175913bcbbdb354336",
    "lib/summary.py": "602a9fedfa503e5544d27ab3b0067f235047efc3",
}
_METERS_1_0 = {
    "YokogawaWT210": 8,
    "YokogawaWT500": 35,
    "YokogawaWT500_multichannel": 48,
    "YokogawaWT310": 49,
    "YokogawaWT330E": 52,
    "YokogawaWT330_multichannel": 77,
}
_METERS = {
    **_METERS_1_0,
    "YokogawaWT310E": 49,
    "YokogawaWT330": 52,
    "YokogawaWT210_DC": 508,
    "YokogawaWT310_DC": 549,
    "YokogawaWT330_DC": 586,
}
_NO_UNCERTAINTY = "Can't evaluate uncertainty of this sample!"


@dataclass(frozen=True)
class CheckerVersion:
    """What differs between the checkers."""

    name: str
    rounds: tuple[str, ...]
    sources: Mapping[str, str]  # SHA-1 of the official scripts
    ptd_versions: tuple[str, ...]
    meters: Mapping[str, int]  # PTDaemon's names and device numbers
    phase_tolerance_s: float
    usual_ranging_errors: tuple[str, ...]  # beginnings of errors that ranging brings along
    first: bool = False  # the checker of round 1.0, which differs in most checks
    analyzer_list: bool = False  # ptd_config is a list, and ranges may be restored by the fourth command


_V1_0 = CheckerVersion(
    "1.0", ("1.0",), _SOURCES_1_0, ("1.9.1", "1.9.2"), _METERS_1_0, 0.2, (_NO_UNCERTAINTY,), first=True
)
_V4_1 = CheckerVersion(
    name="4.1",
    rounds=("4.0", "4.1"),
    sources=_SOURCES_4_1,
    ptd_versions=("1.10.0",),
    meters=_METERS,
    phase_tolerance_s=0.8,
    usual_ranging_errors=(
        _NO_UNCERTAINTY,
        *(f"Bad {name} reading nan from " for name in ("watts", "amps", "pf", "volts")),
        "Current appears to be too high for set range",
    ),
)
_V6_1 = replace(
    _V4_1,
    name="6.1",
    rounds=("5.1", "6.0", "6.1"),
    sources=_SOURCES_6_1,
    ptd_versions=("1.11.1",),
    analyzer_list=True,
)
CHECKERS = (_V1_0, _V4_1, _V6_1)


def checker_of_round(name: str) -> CheckerVersion | None:
    """The checker of a round; None: it is not known here."""
    return next((checker for checker in CHECKERS if name in checker.rounds), None)


def checker_that_fits(ptd_version: str, folder_round: str) -> tuple[CheckerVersion, str]:
    """The checker that accepts a session's PTDaemon, or else that of the round which a folder names, and why."""
    for checker in CHECKERS:
        if ptd_version in checker.ptd_versions:
            return checker, f"its PTDaemon {ptd_version}"
    named = checker_of_round(folder_round)
    return (named, "a folder's name") if named is not None else (CHECKERS[-1], "the newest")
