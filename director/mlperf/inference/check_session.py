"""`power-director check`: one power session by the official checks of a round, and by the rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from director.mlperf.difference import plain
from director.mlperf.finding import InferenceSession, find
from director.mlperf.inference.checker_versions import CHECKERS, CheckerVersion, checker_of_round, checker_that_fits
from director.mlperf.inference.official_checks import CheckResult, official_checks
from director.mlperf.inference.session_files import SERVER, read_description
from director.mlperf.inference.session_score import ptd_version
from director.mlperf.inference.strict_checks import strict_checks
from director.mlperf.text_blocks import NoLog

_STYLES = {"pass": "green", "WARN": "yellow", "FAIL": "bold red"}


class CheckFailed(Exception):
    """There is nothing to check, or nothing to check it by: the text for the user."""


def check_session(path: Path, rules: str | None, json_file: str | None) -> int:
    """Check a session and print the outcomes. Returns the exit status: 0, or 1 where a check fails.

    Raises:
        CheckFailed: see there.
    """
    found = _the_session(path)
    version, why = _version(found, rules)
    official, strict = official_checks(found.path, version), strict_checks(found.path, version)
    if json_file != "-":
        console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
        console.print(Text(plain(str(path)), style="bold"))
        _show(f"official checks of round {version.name} ({why})", official, console)
        _show("strict: as the rules mean them", strict, console)
    if json_file is not None:
        _write(json_file, path, version, why, official, strict)
    return int(any(result.outcome == "FAIL" for result in [*official, *strict]))


def _the_session(path: Path) -> InferenceSession:
    found = list(find([path]))
    sessions = [item for item in found if isinstance(item, InferenceSession)]
    if len(sessions) == 1:
        return sessions[0]
    if len(sessions) > 1:
        raise CheckFailed(f"{path} holds {len(sessions)} sessions; name one, such as {sessions[0].path}")
    why = "".join(f"\n  {item.path} {getattr(item, 'why', 'is an MLPerf Training result')}" for item in found[:3])
    raise CheckFailed(f"{path} holds no session of an MLPerf Inference power measurement (run_1 beside power){why}")


def _version(found: InferenceSession, rules: str | None) -> tuple[CheckerVersion, str]:
    if rules is not None:
        version = checker_of_round(rules)
        if version is None:
            known = ", ".join(name for checker in CHECKERS for name in checker.rounds)
            raise CheckFailed(f"--rules {rules}: there are the checkers of rounds {known}")
        return version, "as asked for" if rules == version.name else f"the same as of round {rules}"
    try:
        server = read_description(found.path / SERVER)
    except NoLog:
        server = None
    return checker_that_fits(ptd_version(server), found.round, server)


def _show(title: str, results: Sequence[CheckResult], console: Console) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    for result in results:
        console.print(Text.assemble("  ", (result.outcome, _STYLES[result.outcome]), f"  {result.name}"))
        if result.text:
            console.print(Text(f"        {plain(result.text)}", style="dim"), soft_wrap=True)
    failed = sum(result.outcome == "FAIL" for result in results)
    warned = sum(result.outcome == "WARN" for result in results)
    verdict = f"{failed} of {len(results)} checks fail" if failed else "all checks pass"
    console.print(f"  {verdict}{f', {warned} with a warning' if warned else ''}")


def _write(
    name: str,
    path: Path,
    version: CheckerVersion,
    why: str,
    official: Sequence[CheckResult],
    strict: Sequence[CheckResult],
) -> None:
    content = {
        "session": str(path),
        "rules": version.name,
        "rules_from": why,
        "official_pass": all(result.outcome != "FAIL" for result in official),
        "strict_pass": all(result.outcome != "FAIL" for result in strict),
        "official": [asdict(result) for result in official],
        "strict": [asdict(result) for result in strict],
    }
    text = json.dumps(content, indent=2) + "\n"
    if name == "-":
        sys.stdout.write(text)
        return
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckFailed(f"{name} cannot be written: {error.strerror}") from None
