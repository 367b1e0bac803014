"""Checks of published power sessions, and of copies that were changed, against the official checkers' outcomes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from golden_inference import SESSIONS, golden, needs_golden

from director.cli import main
from director.mlperf.inference.check_session import check_session
from director.mlperf.inference.checker_versions import CHECKERS, checker_that_fits
from director.mlperf.inference.official_checks import CheckResult, official_checks
from director.mlperf.inference.strict_checks import strict_checks

GOOD = "v41-untether-resnet50-singlestream"
COLUMNS = {"1.0": "813b60b", "4.1": "inf_v4_1", "6.1": "head"}
V1_0, V4_1 = (next(checker for checker in CHECKERS if checker.name == name) for name in ("1.0", "4.1"))

pytestmark = needs_golden


@pytest.mark.parametrize("row", golden(), ids=lambda row: str(row["dev_name"]))
def test_outcomes_are_those_of_the_official_checkers(row: dict[str, str]) -> None:
    for version in CHECKERS:
        if version.name not in COLUMNS:
            continue
        column = f"check_{COLUMNS[version.name]}"
        results = official_checks(SESSIONS / row["dev_name"], version)
        found = {f"{column}:{result.name}": result.outcome for result in results}
        assert found == {key: value for key, value in row.items() if key in found}
        assert len(found) == 11
        passed = all(result.outcome != "FAIL" for result in results)
        assert passed == (row[f"{column}_overall"] == "pass")
        assert all(result.text for result in results if result.outcome != "pass")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(SESSIONS / GOOD, tmp_path / "session")
    for path in (tmp_path / "session").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "session"


def outcome(results: list[CheckResult], name: str) -> CheckResult:
    (found,) = [result for result in results if name in result.name]
    return found


def change(path: Path, edit: Callable[[str], str]) -> None:
    path.write_bytes(edit(path.read_bytes().decode()).encode())


def change_json(path: Path, edit: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def insert_warning(path: Path, stamp: str, text: str) -> None:
    def edit(log: str) -> str:
        at = log.index(": Completed test", log.index(": Go with mark", log.index("_testing'") - 60))
        start = log.rindex("\n", 0, at) + 1
        return f"{log[:start]}{stamp}: WARNING: {text}\n{log[start:]}"

    change(path, edit)


def load_instant(session: Path, seconds: float) -> str:
    """An instant of the load, as PTDaemon writes it."""
    from director.mlperf.inference.power_logs import load_times
    from director.mlperf.inference.sample_log import stamp_text

    return stamp_text(round((load_times(session / "run_1", 0)[0] + seconds) * 1e6))


def test_strict_finds_uncertainty_that_the_official_tolerance_hides(copy: Path) -> None:
    text = "Uncertainty 1.51%, which is above 1.00% limit for the last sample!"
    insert_warning(copy / "power" / "ptd_logs.txt", load_instant(copy, 300), text)
    # a load of 600 s lies wholly within the 800 s that the checker does not look at
    assert outcome(official_checks(copy, V4_1), "PTD logs").outcome == "pass"
    found = outcome(strict_checks(copy, V4_1), "Uncertainty")
    assert found.outcome == "FAIL" and "1.51%" in found.text


def test_strict_does_not_pass_what_nobody_checked(copy: Path) -> None:
    log = copy / "power" / "ptd_logs.txt"
    change(log, lambda text: "".join(x for x in text.splitlines(keepends=True) if "Uncertainty checking" not in x))
    found = outcome(strict_checks(copy, V4_1), "Uncertainty")
    assert found.outcome == "FAIL" and "does not say that uncertainty was checked" in found.text


def test_strict_finds_an_error_behind_a_warning(copy: Path) -> None:
    log = copy / "power" / "ptd_logs.txt"
    insert_warning(log, load_instant(copy, 300), "Something small")
    change(log, lambda text: f"{text}{load_instant(copy, 400)}: ERROR: Lost the meter\n")
    first = outcome(official_checks(copy, V1_0), "PTD logs")
    assert first.outcome in ("WARN", "FAIL")
    found = outcome(strict_checks(copy, V4_1), "All errors")
    assert found.outcome == "FAIL" and "Lost the meter" in found.text


def test_strict_sees_a_clock_an_hour_off(copy: Path) -> None:
    for side in ("client", "server"):

        def earlier(content: dict[str, dict[str, list[list[float]]]]) -> None:
            for phases in content["phases"].values():
                for phase in phases:
                    phase[0] -= 3600

        change_json(copy / "power" / f"{side}.json", earlier)
    assert outcome(official_checks(copy, V4_1), "time difference").outcome == "pass"
    found = outcome(strict_checks(copy, V4_1), "Load inside")
    assert found.outcome != "pass" and ("-3600" in found.text or "hour" in found.text)


def test_a_testing_stage_that_draws_less_fails(copy: Path) -> None:
    def less(text: str) -> str:
        lines = []
        for line in text.splitlines():
            fields = line.split(",")
            if len(fields) > 3:
                fields[3] = f"{float(fields[3]) * 0.94:.6f}"
            lines.append(",".join(fields))
        return "\n".join(lines) + "\n"

    change(copy / "run_1" / "spl.txt", less)
    results = official_checks(copy, V4_1)
    assert outcome(results, "time difference").outcome == "FAIL"
    assert outcome(results, "results checksum").outcome == "FAIL"
    assert outcome(official_checks(copy, V1_0), "time difference").outcome == "FAIL"
    assert outcome(strict_checks(copy, V1_0), "95 %").outcome == "FAIL"


@pytest.mark.parametrize(
    "name,edit,check",
    [
        ("client", lambda c: c["sources"].update({"client.py": "0" * 40}), "client sources"),
        ("server", lambda c: c["sources"].pop("server.py"), "server sources"),
        ("server", lambda c: c["uuid"].update(client="12345678-1234-5678-1234-567812345678"), "UUID"),
        ("server", lambda c: c["uuid"].update(client="no uuid"), "UUID"),
        ("client", lambda c: c.update(session_name="other"), "session name"),
        ("client", lambda c: c["phases"]["testing"][1].__setitem__(0, c["phases"]["testing"][1][0] + 0.9), "time diff"),
        ("client", lambda c: c["messages"].pop(), "server messages"),
        ("client", lambda c: c["messages"][0].update(cmd="mlcommons/power client v2"), "server messages"),
        ("server", lambda c: c["results"].update({"run_1/spl.txt": "0" * 40}), "results checksum"),
        ("server", lambda c: c["ptd_config"].update(device_type=999), "PTD configuration"),
        ("server", lambda c: c.update(debug=True), "debug"),
        ("server", lambda c: c["ptd_messages"][1].update(reply="YokogawaWT999,version=1.10.0-x"), "PTD commands"),
        ("server", lambda c: c["ptd_messages"].pop(), "PTD commands"),
    ],
)
def test_what_is_changed_fails(copy: Path, name: str, edit: Callable[[dict], object], check: str) -> None:  # type: ignore[type-arg]
    before = {result.name: result.outcome for result in official_checks(copy, V4_1)}
    assert set(before.values()) == {"pass"}
    change_json(copy / "power" / f"{name}.json", edit)
    after = official_checks(copy, V4_1)
    assert outcome(after, check).outcome == "FAIL"
    assert [result.name for result in after if result.outcome == "FAIL"] == [outcome(after, check).name]


def passing(session: Path, check: str) -> str:
    """The checkers that pass a session in one check."""
    return " ".join(
        version.name for version in CHECKERS if outcome(official_checks(session, version), check).outcome == "pass"
    )


def test_rounds_between_those_of_the_golden_outcomes(copy: Path) -> None:
    """What each round's checker differs in, as its tag of mlcommons/inference has it."""
    server, samples = copy / "power" / "server.json", copy / "run_1" / "spl.txt"
    for ptd, accepting in (("1.9.2", "1.0 2.0 2.1"), ("1.10.0", "3.0 3.1 4.1"), ("1.11.1", "5.0"), ("1.12.0", "")):
        change(server, lambda text, ptd=ptd: re.sub(r"version=[\d.]+-", f"version={ptd}-", text))  # type: ignore[misc]
        assert passing(copy, "PTD commands") == accepting  # 6.1 looks for one more command than these scripts send
    original = server.read_bytes()
    for run in ("ranging", "run_1"):
        change(copy / run / "spl.txt", lambda text: text.rstrip("\n") + "\n")
    for apart_s, accepting in ((0.15, "2.0 2.1 3.0 3.1 4.1 5.0 6.1"), (0.4, "2.1 3.0 3.1 4.1 5.0 6.1"), (0.9, "3.0")):
        change_json(server, lambda c, s=apart_s: [p.__setitem__(0, p[0] + s) for p in c["phases"]["testing"]])  # type: ignore[misc]
        assert passing(copy, "time difference") == accepting
        server.write_bytes(original)
    assert passing(copy, "time difference") == "2.0 2.1 3.0 3.1 4.1 5.0 6.1"
    change(samples, lambda text: f"{text}\n")  # round 3.1 ends at a blank line; before, samples were not looked at
    assert passing(copy, "time difference") == "2.0 2.1 3.0 4.1 5.0 6.1"
    change(samples, lambda text: text.replace("Watts,", "Watts,0.5"))  # some 0.05 % of ranging
    assert passing(copy, "time difference") == "2.0 2.1 3.0"


def test_uncertainty_that_only_some_rounds_refuse(copy: Path) -> None:
    text = "Uncertainty 1.51%, which is above 1.00% limit for the last sample!"
    detail = copy / "run_1" / "mlperf_log_detail.txt"
    end = load_instant(copy, 600)
    later = load_instant(
        copy, 1100
    )  # now the load lasts 1100 s, of which round 3.1 looks at 100 s, and later ones none
    change(
        detail,
        lambda log: log.replace(f'"key": "power_end", "value": "{end}"', f'"key": "power_end", "value": "{later}"'),
    )
    insert_warning(copy / "power" / "ptd_logs.txt", load_instant(copy, 550), text)
    outcomes = {v.name: outcome(official_checks(copy, v), "PTD logs").outcome for v in CHECKERS if v.name > "3"}
    assert outcomes == {"3.0": "pass", "3.1": "FAIL", "4.1": "pass", "5.0": "pass", "6.1": "pass"}


def test_the_checker_that_fits() -> None:
    def fitting(ptd: str, folder: str = "", sources: object = None, config: object = None) -> str:
        return checker_that_fits(ptd, folder, {"sources": sources, "ptd_config": config})[0].name

    assert [fitting(ptd) for ptd in ("1.9.1", "1.10.0", "1.11.1", "2.0.0")] == ["2.1", "4.1", "5.0", "6.1"]
    assert fitting("1.11.1", config=[{}]) == "6.1"
    assert fitting("1.11.1", "6.0") == "6.1" and fitting("1.11.1", "5.0", config=[{}]) == "5.0"
    assert fitting("1.10.0", "3.1") == "3.1" and fitting("1.10.0", "6.1") == "4.1" and fitting("9", "3.1") == "3.1"
    for version in CHECKERS:  # by its scripts; those of round 2.0 are accepted in round 2.1, too
        config = [{}] if version.analyzer_list else {}
        fits = {fitting(version.ptd_versions[0], "", dict(sources), config) for sources in version.sources}
        assert fits == {"2.1" if version.name == "2.0" else version.name}


def test_default_rules_and_exit_status(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(copy)]) == 0
    shown = capsys.readouterr().out
    assert "official checks of round 4.1" in shown and "\nstrict" in shown
    assert main(["check", "--rules", "6.0", "--json", "-", str(copy)]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["rules"] == "6.1" and not content["official_pass"] and content["strict_pass"]
    assert len(content["official"]) == 11
    assert main(["check", "--rules", "9.9", str(copy)]) == 2
    assert main(["check", str(copy / "run_1")]) == 2
    assert "no session" in capsys.readouterr().err


def test_damaged_sessions_fail_in_words(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"{", b"[1]", b"\xff\xfe", b"version https://git-lfs.github.com/spec/v1\n", b"{}"):
        (copy / "power" / "client.json").write_bytes(content)
        assert check_session(copy, "4.1", None) == 1
    (copy / "power" / "client.json").unlink()
    (copy / "power" / "client.json").symlink_to("client.json")
    assert check_session(copy, "4.1", None) == 1
    shutil.rmtree(copy / "power")
    (copy / "power").mkdir()
    assert check_session(copy, None, None) == 1
    assert "Traceback" not in capsys.readouterr().out
