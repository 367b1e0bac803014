"""`power-director session list`: the sessions that a director keeps or kept, as their manifests tell."""

from __future__ import annotations

import time
from pathlib import Path

from director.answers.report_command import print_table
from director.fleet.session_folder import find_folders
from director.running.notices import say
from director.session.fleet_record import RUNNING


def print_sessions(sessions: Path) -> int:
    """Print all, the running ones first; returns the exit status."""
    rows = []
    for folder in find_folders(sessions, say):
        manifest = folder.manifest
        fleet = manifest.fleet
        assert fleet is not None
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.created_wall_ns // 10**9))
        names = [record.host for record in fleet.agents]
        hosts = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        rows.append((fleet.state not in RUNNING, [manifest.session, fleet.state, since, hosts, manifest.label]))
    rows.sort(key=lambda row: row[0])
    if not rows:
        say(f"there is no session of a fleet in {sessions}")
        return 0
    print_table("", ("session", "state", "since", "hosts", "label"), [row for _, row in rows])
    return 0
