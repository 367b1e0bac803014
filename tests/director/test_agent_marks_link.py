"""The link to a session's marks on a machine without an agent, and the agent that may be started there later."""

from __future__ import annotations

from pathlib import Path

from director.running.fleet_marks import close_marks, open_marks
from director.session.fleet_record import AgentRecord, Fleet
from power_agent.service.run_folder import RunFolder


def test_what_a_directors_job_left_is_in_no_agents_way(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fleet = Fleet(
        state="testing", director_host="here", director_boot_id="b", agents=[AgentRecord(host="there", boot_id="c")]
    )
    sessions = [tmp_path / name for name in ("one", "two")]
    for session in sessions:
        (session / "marks").mkdir(parents=True)
        open_marks(session, session.name, fleet, run_dir)
        (run_dir / session.name / "1.marks").write_text("a mark")
    close_marks("one", run_dir)
    assert (run_dir / "two").is_symlink(), "another session goes on"
    close_marks("two", run_dir)
    assert not run_dir.exists(), "who comes first owns it"
    assert [(s / "marks" / "here" / "1.marks").read_text() for s in sessions] == ["a mark"] * 2
    agent = RunFolder(run_dir)
    close_marks("no such session", run_dir)
    assert run_dir.is_dir()
    agent.close()
