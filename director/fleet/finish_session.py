"""A process of its own: makes traces, results and report of one session, while the director serves others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from director.answers.report_command import explain_failure, write_report_page
from director.fleet.finishing import REPORT
from director.running.run_options import ReportOptions
from director.session.files import hold, load_manifest, store_manifest, write_durably
from director.session.ingest import ingest
from director.session.job_record import with_job


def finish_session(session: Path) -> None:
    """Finish it; doing it twice changes nothing.

    Raises:
        SessionError: it is damaged, or another director works in it.
        OSError: the disk is full or fails.
    """
    import io

    from director.answers.results import write_results
    from director.answers.terminal_table import print_summary
    from director.report_page.page import write_page

    with hold(session):
        manifest = with_job(session, load_manifest(session))
        store_manifest(session, manifest)
        fleet = manifest.fleet
        still_to_come = [record.host for record in fleet.agents if record.agent and not record.whole] if fleet else []
        by_agent = fleet is not None and not fleet.asker
        manifest = ingest(session, "recovered" if by_agent else "complete", still_to_come)
        if by_agent and len(manifest.hosts) > 1:
            # No director was there to tie their clocks to each other: their wall clocks do.
            manifest = msgspec.structs.replace(manifest, reference_boot_id=manifest.hosts[0].boot_id)
            store_manifest(session, manifest)
        summary = write_results(session)
        text = io.StringIO()
        print_summary(summary, text)
        write_durably(session / REPORT, text.getvalue().encode())
        write_report_page(lambda: write_page(session, manifest, summary), ReportOptions(quiet=True))


def main() -> int:
    """Called with the session's directory; returns the exit status, and says why it is not 0."""
    os.nice(10)  # a job may run here
    session = Path(sys.argv[1])
    try:
        finish_session(session)
    except Exception as error:  # whatever is wrong with us, the readings are there and the user must know
        print(f"{explain_failure(error)}. The readings are kept")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
