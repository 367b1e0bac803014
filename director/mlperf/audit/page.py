"""The audit as a page: one file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from director.mlperf.audit.findings import RULES
from director.report_page.template import render

if TYPE_CHECKING:
    from director.mlperf.audit.audit_command import Audited

MOST_PLACES = 20  # of a rule that are listed


def page(audited: Sequence[Audited]) -> str:
    """The page as text: for each folder the rules that found something, each with its places."""
    from director.mlperf.audit.audit_command import counts_text, files_of

    folders = [
        {
            "name": item.name,
            "kind": item.kind,
            "path": str(item.path),
            "counts": counts_text(item.counts()),
            "rules": [
                {
                    "worst": of_rule[0],
                    "rule": RULES[of_rule[0].rule],
                    "files": files_of(of_rule),
                    "places": [(item.shown_file(one), one.text) for one in of_rule[:MOST_PLACES]],
                    "left_out": max(0, len(of_rule) - MOST_PLACES),
                }
                for of_rule in item.by_rule()
            ],
        }
        for item in audited
    ]
    parts = [("main", "Audit"), *((f"f{number}", item.name[:40]) for number, item in enumerate(audited[:12]))]
    errors = sum(item.counts()["error"] for item in audited)
    return render(
        "audit.html",
        scripts=False,
        title="Audit of MLPerf power results",
        parts=parts,
        version=version("ml-power-agent"),
        folders=folders,
        errors=errors,
    )
