"""`report --format`: what comes out is read back by others' parsers and says what summary.json says."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from made_meter_session import HOSTILE, LITTLE, made_hostile, made_little, made_series, made_training
from markdown_it import MarkdownIt
from markdown_it.token import Token

from director.answers.number_text import figure_text
from director.answers.results import write_results
from director.answers.summary import Summary
from director.cli import main
from director.report_files.csv_rows import COLUMNS, session_csv
from director.report_files.markdown import session_markdown
from director.report_files.markdown_text import escaped, fenced, table
from director.report_page.template import shown
from director.session.files import load_manifest

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
OURS_ONLY = {"paragraph", "heading", "table", "thead", "tbody", "tr", "th", "td", "strong", "bullet_list", "list_item"}

one_line = st.text(st.sampled_from("ab1.) -+*_#`|\\<>[]()!&;:$~@='\",\t\n\r\x00é🔥")) | st.text()


def report(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "director.cli", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60)


def given(session: Path, form: str) -> str:
    """What is written to a file."""
    target = session.parent / f"given.{form}"
    assert main(["report", str(session), "--format", form, "--output", str(target)]) == 0
    return target.read_bytes().decode("utf-8")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def plain(text: str) -> str:
    """As a reader sees it: mentions are broken by a character that is unseen."""
    return text.replace("\u2060", "")


def inline_text(token: Token) -> str:
    """The text of a paragraph, heading or cell."""
    return plain("".join(child.content for child in token.children or []))


def tables(tokens: list[Token]) -> list[list[list[str]]]:
    """The cells of every table."""
    found: list[list[list[str]]] = []
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and tokens[number - 1].type in ("td_open", "th_open"):
            found[-1][-1].append(inline_text(token))
    return found


# JSON, HTML


def test_json_is_the_summary_and_html_the_page(tmp_path: Path) -> None:
    made_training(tmp_path)
    done = report(tmp_path, "--format", "json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (tmp_path / "summary.json").read_bytes()
    assert given(tmp_path, "html").encode() == (tmp_path / "report.html").read_bytes()


def test_without_a_page_html_fails(tmp_path: Path) -> None:
    made_training(tmp_path)
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "something").touch()
    done = report(tmp_path, "--format", "html")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Is a directory" in done.stderr and b"Traceback" not in done.stderr


# CSV


def test_csv_says_what_the_summary_says(tmp_path: Path) -> None:
    text = given(made_training(tmp_path), "csv")
    phases = json.loads((tmp_path / "summary.json").read_bytes())["phases"]
    rows = rows_of(text)
    assert tuple(rows[0]) == COLUMNS
    expected = [
        (phase["name"], kind, figure)
        for phase in phases
        for kind, figures in (
            ("total", [phase["total"]]),
            ("component", phase["components"]),
            ("not explained", phase["not_explained"]),
        )
        for figure in figures
    ]
    assert len(rows) == len(expected) == 3 * 4  # total, wall, GPU, what the GPU does not explain
    for row, (phase, kind, figure) in zip(rows, expected, strict=True):
        assert (row["phase"], row["kind"], row["component"]) == (phase, kind, figure["name"])
        for column in ("joules", "expanded_joules", "mean_watts", "coverage", "readings", "stale", "missing"):
            assert float(row[column]) == figure[column]  # exactly: numbers are written in full
        assert row["peak_watts"] == ("" if figure["peak_watts"] is None else repr(figure["peak_watts"]))
        assert row["estimate"] == "false" and row["method"] == figure["method"]
    # 200 W × 30 s, of which 120 W × 30 s are the GPU's
    run = {
        row["kind"]: float(row["joules"]) for row in rows if row["phase"] == "run" and "gpu0" not in row["component"]
    }
    assert run["total"] == pytest.approx(6000) and run["not explained"] == pytest.approx(2400)


def test_pandas_reads_numbers_as_numbers(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(given(made_training(tmp_path), "csv")))
    kinds = {name: frame[name].dtype.kind for name in ("joules", "coverage", "readings", "estimate", "missing")}
    assert kinds == {"joules": "f", "coverage": "f", "readings": "i", "estimate": "b", "missing": "i"}


def test_no_cell_is_a_formula_and_every_row_is_a_line(tmp_path: Path) -> None:
    text = given(made_hostile(tmp_path), "csv")
    rows = rows_of(text)
    assert text.endswith("\r\n") and len(text[:-2].split("\r\n")) == 1 + len(rows)
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\u202e]", text)
    names = {row["phase"] for row in rows}
    for name in HOSTILE:
        assert shown(name, 3000) in names or f"'{shown(name, 3000)}" in names
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.lstrip()[:1] in ("=", "+", "@")]
    assert '\'=HYPERLINK("http://x","y")' in cells


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return write_results(made_training(tmp_path_factory.mktemp("made")))


@for_all(name=one_line)
@settings(max_examples=200, deadline=None)
def test_any_name_comes_back_or_with_an_apostrophe(name: str, summary: Summary) -> None:
    phase = msgspec.structs.replace(summary.phases[0], name=name)
    rows = rows_of(session_csv(msgspec.structs.replace(summary, phases=[phase])))
    assert len(rows) == 4
    found = rows[0]["phase"]
    assert found in (shown(name, 1000), f"'{shown(name, 1000)}")
    assert found.lstrip()[:1] not in ("=", "+", "-", "@")


# Markdown


def test_markdown_says_what_the_summary_says(tmp_path: Path) -> None:
    text = given(made_training(tmp_path), "md")
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    tokens = GITHUB.parse(text)
    metrics, energies, terms, *_ = tables(tokens)
    assert [row[0] for row in metrics[1:]] == [metric["name"] for metric in summary["metrics"]]
    joules = next(m for m in summary["metrics"] if m["name"] == "joules-to-train")
    value = figure_text(joules["value"], joules["expanded"], "J")
    assert value.startswith("6.00")  # 200 W × 30 s
    assert next(row for row in metrics if row[0] == "joules-to-train")[3] == value
    assert f"Training used **{value}** of electrical energy" in text
    by_phase = {name: list(rows) for name, rows in groupby(energies[1:], key=lambda row: row[0])}
    assert list(by_phase) == ["command", "run", "epoch ×2"]
    gpu = next(row for row in by_phase["run"] if row[1] == "gpu0")
    figure = next(f for f in summary["phases"][1]["components"] if f["name"] == "node0/gpu0")
    assert gpu[4] == figure_text(figure["joules"], figure["expanded_joules"], "J")
    assert [row[1] for row in by_phase["run"]] == ["total", "meter", "gpu0", "meter not explained"]
    assert [row[0] for row in terms[1:]] == ["meter", "edge", "sync", "window", "step", "gap"]
    fences = [token.content for token in tokens if token.type == "fence"]
    assert any(content.startswith("power-director run --label resnet") for content in fences)


def test_hostile_text_is_text(tmp_path: Path) -> None:
    text = given(made_hostile(tmp_path), "md")
    tokens = GITHUB.parse(text)
    blocks = {re.sub(r"_(open|close)$", "", token.type) for token in tokens}
    assert blocks <= OURS_ONLY | {"inline", "fence"}
    inline = {re.sub(r"_(open|close)$", "", c.type) for token in tokens for c in token.children or []}
    assert inline <= {"text", "strong", "text_special"}
    assert not re.search(r"@(?=\w)", text.split("## Do it again")[0])
    (_, energies, *_) = tables(tokens)
    assert {len(row) for row in energies} == {8}
    names = {row[0] for row in energies}
    for name in HOSTILE:
        assert shown(name, 1200).strip() in names
    heading = next(b for a, b in pairwise(tokens) if a.type == "heading_open")
    assert inline_text(heading) == shown(HOSTILE[1], 160)


@for_all(one_line)
@settings(max_examples=400, deadline=None)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    wanted = plain(shown(text, 1200)).strip() or '""'
    for source in (f"{escaped(text)}\n", f"- {escaped(text)}\n- b\n", f"## {escaped(text)}\n"):
        first = next(token for token in GITHUB.parse(source) if token.type == "inline")
        assert inline_text(first).strip() == wanted
        assert {child.type for child in first.children or []} <= {"text", "text_special"}
    (cells,) = tables(GITHUB.parse("\n".join(table(("a", "b"), [[text, "c"]], 1))))
    assert cells == [["a", "b"], [wanted if text else "", "c"]]
    (fence,) = (token for token in GITHUB.parse("\n".join(fenced(text))) if token.type == "fence")
    assert fence.content == shown(text, 6000) + "\n"


@pytest.mark.parametrize("what", LITTLE)
def test_a_session_that_holds_little(what: str, tmp_path: Path) -> None:
    summary = write_results(made_little(tmp_path, what))
    text = session_markdown(summary, load_manifest(tmp_path))
    rows = rows_of(session_csv(summary))
    assert {row["phase"] for row in rows} == {phase.name for phase in summary.phases}
    nothing = what in ("no power", "no reading", "one reading")
    assert ("No energy can be given" in text) == nothing
    assert ("not measured" in text) == nothing
    totals = [row for row in rows if row["kind"] == "total"]
    assert all((row["joules"] == "") == nothing for row in totals)
    assert not [row for row in rows if row["joules"] == "0.0"]
    estimate = what == "only estimates"
    assert ("ESTIMATE" in text.split("##")[0]) == estimate
    assert {row["estimate"] for row in rows if row["joules"]} <= {"true" if estimate else "false"}
    if what == "some are missing":
        command = next(row for row in rows if row["kind"] == "component")
        assert (command["readings"], command["missing"]) == ("20", "10")


def test_the_same_bytes_again(tmp_path: Path) -> None:
    made_training(tmp_path)
    for form in ("md", "csv"):
        assert report(tmp_path, "--format", form).stdout == given(tmp_path, form).encode()


# Series


def test_a_series_in_every_format(tmp_path: Path) -> None:
    made_series(tmp_path)
    rows = rows_of(given(tmp_path, "csv"))
    assert {(row["run"], row["run_status"]) for row in rows} == {("run-001", "0"), ("run-002", "0"), ("run-003", "3")}
    one = rows_of(given(tmp_path / "run-002", "csv"))
    of_series = [row for row in rows if row["run"] == "run-002"]
    assert [{k: v for k, v in row.items() if k not in ("run", "run_status")} for row in of_series] == one
    whole = given(tmp_path, "json")
    runs, metrics = tables(GITHUB.parse(given(tmp_path, "md")))
    assert [row[:2] for row in runs[1:]] == [["run-001", ""], ["run-002", ""], ["run-003", "failed, status 3"]]
    spread = {m["name"]: m for m in json.loads(whole)["metrics"]}
    trained = next(row for row in metrics if row[0] == "joules-to-train")
    energy = spread["joules-to-train"]
    assert trained[2:4] == ["2", figure_text(energy["mean"], energy["expanded"], "J")]
    assert energy["mean"] == pytest.approx((6000 + 6200) / 2, rel=1e-3)  # 200 W for 30 s, 100 W for 2 s more
    page = given(tmp_path, "html")
    assert page == (tmp_path / "report.html").read_text(encoding="utf-8")


# The command


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "x"], "--output needs one of --format"),
        (["--format", "csv", "--explain"], "--explain is a part of the table"),
        (["--format", "csv", "--json", "-"], "both go to standard output"),
        (["--plot-format", "png"], "--plot-format needs --plots"),
        (["--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_wrong_usage(options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_training(tmp_path)
    assert main(["report", str(tmp_path), "--format", "csv", "--output", str(tmp_path / "none" / "x.csv")]) == 1
    said = capsys.readouterr().err
    assert "No such file or directory" in said and "x.csv" in said


def test_who_reads_may_stop_before_the_end(tmp_path: Path) -> None:
    made_training(tmp_path)
    line = f"{sys.executable} -m director.cli report {tmp_path} --format html | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"<0\n", b"")
