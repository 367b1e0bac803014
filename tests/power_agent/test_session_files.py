"""What is sent of a folder that every user may write to: bounded for each, and nothing that was sent is forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_agent.service.sent_files import sent_files
from power_agent.service.session_files import Allowance, SessionFiles

JOB, OTHER = os.geteuid(), 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "marks"
    made.mkdir()
    return made


def write(path: Path, size: int, uid: int = JOB) -> None:
    path.write_bytes(bytes(size))
    if uid != JOB:
        os.chown(path, uid, -1)


def sizes(files: SessionFiles) -> dict[str, int]:
    return {name: file.size for name, file in files.found()}


@needs_root
def test_a_user_who_fills_the_folder_harms_only_himself(folder: Path) -> None:
    files = SessionFiles({"marks": folder}, Allowance(files=100, files_of_user=3, bytes_of_user=1000))
    write(folder / "job", 300)
    for number in range(5):
        write(folder / f"a{number}", 400, OTHER)
    assert sizes(files) == {"marks/a0": 400, "marks/a1": 400, "marks/a2": 200, "marks/job": 300}
    write(folder / "job", 900)
    assert sizes(files)["marks/job"] == 900
    assert files.left_out() == [
        f"2 files and {5 * 400 - 1000} bytes that user {OTHER} put among the marks of this session are left out; "
        "of one user 3 files and 1000 bytes are kept"
    ]
    assert files.problems() == [f"user {OTHER} puts more among the marks than is kept: the rest is left out"]


def test_what_was_sent_once_is_sent_on_whatever_comes_before_it(folder: Path) -> None:
    files = SessionFiles({"marks": folder}, Allowance(files=2, files_of_user=2, bytes_of_user=1000))
    write(folder / "m", 600)
    assert sizes(files) == {"marks/m": 600}
    for name in ("a", "b", "c"):
        write(folder / name, 500)
    assert sizes(files) == {"marks/a": 400, "marks/m": 600}
    write(folder / "m", 601)
    assert sizes(files) == {"marks/a": 400, "marks/m": 600}
    assert "2 files and 1101 bytes" in files.left_out()[0]


def test_one_that_is_known_is_found_among_any_number_of_others(folder: Path) -> None:
    known = [f"known{number}" for number in range(5)]
    for number in range(50):
        write(folder / f"{number}", 1)
    for name in known:
        write(folder / name, 1)
    more: list[bool] = []
    found = {file.name for file in sent_files(folder, known=known, most=10, on_more=lambda: more.append(True))}
    assert found >= set(known) and len(found) <= 15 and more == [True]


def test_all_within_the_allowance_is_sent_and_nothing_told(folder: Path) -> None:
    write(folder / "1.marks", 10)
    write(folder / "2.marks", 0)
    (folder / "below").mkdir()
    write(folder / "below" / "3.marks", 5)
    files = SessionFiles({"marks": folder, "logs": folder / "nothing"})
    assert sizes(files) == {"marks/1.marks": 10, "marks/2.marks": 0, "marks/below/3.marks": 5}
    assert files.left_out() == files.problems() == []


def test_names_that_cannot_be_sent_are_told_once(folder: Path) -> None:
    for number in range(30):
        write(folder / f"a name {number}", 1)
    (folder / os.fsdecode(b"\xff")).touch()
    files = SessionFiles({"marks": folder})
    assert sizes(files) == {}
    assert len(files.problems()) == 1 and "give it a name of letters" in files.problems()[0]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 300)), max_size=20),
    most_files=st.integers(1, 6),
    most_bytes=st.integers(0, 800),
)
def test_sizes_never_fall_and_stay_within_the_allowance(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]], most_files: int, most_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("marks")
    files = SessionFiles({"marks": folder}, Allowance(files_of_user=most_files, bytes_of_user=most_bytes))
    before: dict[str, int] = {}
    for number, more in steps:
        with (folder / f"{number}").open("ab") as file:
            file.write(bytes(more))
        now = sizes(files)
        assert now.keys() >= before.keys() and all(now[name] >= before[name] for name in before)
        assert len(now) <= most_files and sum(now.values()) <= most_bytes
        written = {path: path.stat().st_size for path in folder.iterdir()}
        assert bool(files.left_out()) == (sum(now.values()) < sum(written.values()) or len(now) < len(written))
        before = now
