"""The audit as a page: one file that opens offline."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, TextIO

from director.mlperf.audit.audited import Audits, counts_text, files_of
from director.mlperf.audit.findings import RULES
from director.report_page.template import render_parts

MOST_PLACES = 20  # of a rule that are listed
_MOST_PARTS = 12  # in the bar above


def write_page(audits: Audits, file: TextIO) -> None:
    """Write the page: for each folder the rules that found something, each with its places."""
    parts = [("main", "Audit")]
    parts += [(f"f{number}", name[:40]) for number, name in enumerate(audits.names[:_MOST_PARTS])]
    file.writelines(
        render_parts(
            "audit.html",
            scripts=False,
            title="Audit of MLPerf power results",
            parts=parts,
            version=version("ml-power-agent"),
            folders=_folders(audits),
            number=len(audits),
            errors=audits.counts["error"],
        )
    )


def _folders(audits: Audits) -> Iterator[dict[str, Any]]:
    for item in audits:
        rules = [
            {
                "worst": of_rule[0],
                "rule": RULES[of_rule[0].rule],
                "files": files_of(of_rule),
                "places": [(item.shown_file(one), one.text) for one in of_rule[:MOST_PLACES]],
                "left_out": max(0, len(of_rule) - MOST_PLACES),
            }
            for of_rule in item.by_rule()
        ]
        counts = counts_text(item.counts())
        yield {"name": item.name, "kind": item.kind, "path": item.path, "counts": counts, "rules": rules}
