"""The folder for marks, and what is sent of folders that others write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unprivileged import folder_for_all, no_privileges

from power_agent.service.run_folder import RunFolder, RunFolderProblem
from power_agent.service.sent_files import sent_files
from power_agent.service.session_folder import RECORD_FILE, ProcessId, SessionFolder, SessionRecord, find_sessions
from power_agent.spool import SpoolWriter


def record(name: str) -> SessionRecord:
    return SessionRecord(session=name, host="h", stage="testing", boot_id="b", marks="/nowhere")


def test_every_user_may_mark_and_nobody_may_change_the_folder(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = RunFolder(tmp_path / "run")
        marks = folder.marks("s")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE(marks.stat().st_mode) == 0o1777
    assert folder.marks("s") == marks, "an agent that was started anew finds it"
    with pytest.raises(RunFolderProblem, match="another agent serves"):
        RunFolder(tmp_path / "run")
    folder.remove("s")
    assert not marks.exists()
    folder.close()
    RunFolder(tmp_path / "run").close()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to("elsewhere")
    with pytest.raises(RunFolderProblem, match="--run-dir"):
        RunFolder(tmp_path / "run")
    folder = RunFolder(tmp_path / "other")
    (folder.path / "s").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        folder.marks("s")
    (tmp_path / "elsewhere" / "keep").touch()
    folder.remove("s")
    assert (tmp_path / "elsewhere" / "keep").exists()
    folder.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_a_folder_of_somebody_elses_is_refused() -> None:
    with folder_for_all() as base:
        base.chmod(0o1777)
        with no_privileges():
            (base / "run").mkdir(0o777)
        with pytest.raises(RunFolderProblem, match="belongs to another user"):
            RunFolder(base / "run")
        folder = RunFolder(base / "mine")
        marks = folder.marks("s")
        with no_privileges():
            (marks / "1.marks").write_text("a mark")
            with pytest.raises(OSError):
                (folder.path / "s2").mkdir()
        assert [(file.name, file.read(0, 10)) for file in sent_files(marks)] == [("1.marks", b"a mark")]
        folder.close()


def test_only_plain_files_of_their_own_are_sent(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "marks"
    (folder / "a" / "b" / "c" / "d").mkdir(parents=True)
    (folder / "plain").write_text("plain")
    (folder / "a" / "b" / "deep").write_text("deep")
    (folder / "a" / "b" / "c" / "d" / "too-deep").write_text("x")
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    (folder / "second-name").hardlink_to(secret)
    os.mkfifo(folder / "fifo")
    assert [file.name for file in sent_files(folder)] == ["plain", "a/b/deep"]
    assert list(sent_files(tmp_path / "nothing")) == []
    (tmp_path / "linked").symlink_to(folder)
    assert list(sent_files(tmp_path / "linked")) == []


@pytest.mark.parametrize("change", ["link", "second name", "fifo", "gone"])
def test_a_file_that_is_changed_after_it_was_found_is_not_read(tmp_path: Path, change: str) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "marks"
    secret.write_text("secret")
    folder.mkdir()
    (folder / "f").write_text("plain")
    for file in sent_files(folder):
        (folder / "f").unlink()
        if change == "link":
            (folder / "f").symlink_to(secret)
        elif change == "second name":
            (folder / "f").hardlink_to(secret)
        elif change == "fifo":
            os.mkfifo(folder / "f")
        with pytest.raises(OSError):
            file.read(0, 10)


def test_a_session_is_found_again(tmp_path: Path) -> None:
    made = SessionFolder.create(tmp_path, record("s"))
    made.record.choices = made.record.choices
    made.store()
    (tmp_path / ".new-x").mkdir()
    (tmp_path / "link").symlink_to(made.path)
    (found,) = find_sessions(tmp_path)
    assert isinstance(found, SessionFolder) and found.record == made.record and found.is_running
    assert found.recorded_until_ns() is None
    found.end()
    assert not SessionFolder(made.path, made.record).is_running
    with pytest.raises(OSError):
        SessionFolder.create(tmp_path, record("s"))
    found.delete()
    assert not made.path.exists()


def test_a_spool_that_was_never_made_does_not_stop_a_session(tmp_path: Path) -> None:
    made = SessionFolder.create(tmp_path, record("s"))
    made.spool.touch()
    assert made.recorded_until_ns() is None and not made.spool.exists()
    SpoolWriter(made.spool, {}).close()
    assert made.recorded_until_ns() == 0


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_a_record_that_is_none_is_told(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    state = tmp_path_factory.mktemp("state")
    (state / "s").mkdir()
    (state / "s" / RECORD_FILE).write_bytes(content)
    (found,) = find_sessions(state)
    assert isinstance(found, str) and "is left alone" in found


def test_a_process_is_told_from_a_later_one() -> None:
    me = ProcessId.of(os.getpid())
    assert not me.is_gone()
    assert ProcessId(pid=os.getpid(), started="1").is_gone()
    assert ProcessId.of(2**22 + 1).is_gone()
