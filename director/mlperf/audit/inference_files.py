"""Rules on a session's files: checksums, and the official scripts."""

from __future__ import annotations

from collections.abc import Iterator

from director.mlperf.audit.findings import Finding, finding
from director.mlperf.audit.inference_session import Session, line_of_text
from director.mlperf.inference.power_logs import result_checksums
from director.mlperf.inference.session_files import CLIENT, SERVER

_READ_ELSEWHERE = ("spl.txt", "ptd_logs.txt")  # whose absence other rules tell


def checksums(session: Session) -> Iterator[Finding]:
    """Every required file against what both sides recorded."""
    try:
        found = result_checksums(session.path, with_client=False)
    except OSError as error:
        yield finding("file-missing", f"cannot be read: {error.strerror}", session.path)
        return
    for name, sha in found.items():
        path = session.path / name
        if sha is None:
            if not name.endswith(_READ_ELSEWHERE):
                yield finding("file-missing", f"{name} is not there", path)
            continue
        recorded = {}
        for file, description in ((CLIENT, session.client), (SERVER, session.server)):
            results = description.get("results")
            if isinstance(results, dict) and name in results:
                recorded[file] = str(results[name])
        if not recorded and session.client and session.server:
            yield finding("checksum", f"{name} has no recorded checksum", path, value=sha)
        for file, value in recorded.items():
            if value != sha:
                line = line_of_text(session.path / file, name)
                text = f"{name} has {sha}, {file.name} recorded {value[:60]}"
                yield finding("checksum", text, session.path / file, line=line, value=sha)


def scripts_changed(session: Session) -> Iterator[Finding]:
    expected = session.version.sources[0]
    for file, description in ((CLIENT, session.client), (SERVER, session.server)):
        sources = description.get("sources")
        if not description or sources in session.version.sources:
            continue
        sources = sources if isinstance(sources, dict) else {}
        others = sorted(str(name) for name in {*sources, *expected} if sources.get(name) != expected.get(name))
        text = f"not those of round {session.version.name}: {', '.join(others[:6])}{' …' if len(others) > 6 else ''}"
        line = line_of_text(session.path / file, '"sources"')
        yield finding("scripts-changed", text, session.path / file, line=line, value=len(others), count=len(others))


RULES_OF_FILES = (checksums, scripts_changed)
