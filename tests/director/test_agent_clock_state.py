"""What a host's chrony, PTP and kernel said of its clock, where a reader of the report looks."""

from __future__ import annotations

from pathlib import Path

import msgspec
from test_clock_sync import made

from director.answers.results import write_results
from director.report_page.page_data import facts
from director.session.files import load_manifest, store_manifest


def test_the_state_of_a_hosts_clock_is_told(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", sync=None, own_marks=False)
    manifest = load_manifest(folder)
    one, two = manifest.hosts
    assert one.wall_clock == "", "of which nobody asked"
    state = {"kernel": "not synchronised", "kernel_ppm": "1.000", "chrony": "10.0.0.1, stratum 2"}
    two = msgspec.structs.replace(two, clock_state=state)
    store_manifest(folder, msgspec.structs.replace(manifest, hosts=[one, two]))
    summary = write_results(folder)
    said = "chrony: 10.0.0.1, stratum 2; kernel: not synchronised"
    assert [w for w in summary.warnings if "tied by wall time alone" in w and w.endswith(f"the machine says: {said}")]
    assert dict(facts(summary, load_manifest(folder)))["wall clock of node1"] == said
