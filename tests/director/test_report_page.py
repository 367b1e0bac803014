"""The page of a session: what it says, that it says it safely, the same each time, and on any session."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_gpu_training import PEAK_WATTS, SPIKE_SHARE, made_gpu_training
from made_meter_session import MARKS, ORIGIN_NS, S, at, made_hostile, meter
from made_session import made_manifest, made_marks, made_stream

from director.answers.metrics import session_metrics
from director.answers.results import write_results
from director.answers.summary import Summary
from director.phases.table import PhaseTable, write_phases
from director.report_page.embed import LEVELS, NOT_MEASURED, Header, encode, json_in_html
from director.report_page.headline import headline
from director.report_page.page import write_page
from director.report_page.phase_strip import MOST_BLOCKS, MOST_ROWS, phase_strip
from director.report_page.plot_data import Envelope, plot_data
from director.running.run_options import ReportOptions
from director.running.series import report_series
from director.session.files import load_manifest
from director.session.manifest import Factors
from drivers.contract import Channel, Status

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 2'>",
    "\"quotes' &amp; {{ 7 * 7 }} {% raw %}",
    "🔥👩‍🚀 \u202eltr\u2028",
    "two kilobytes " + "x" * 2048,
    "<!-- <![CDATA[ -->",
]


class Elements(HTMLParser):
    """All elements with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data


def each_second(session: Path, watts: Any, *, channel: Channel | None = None, keep: Any = None) -> Any:
    """A stream of one reading a second: value i stands for the second that begins at i."""
    values = np.asarray(watts, dtype=float)
    t_ns = ORIGIN_NS + (np.arange(len(values)) + 1) * S
    if keep is not None:
        values, t_ns = values[keep], t_ns[keep]
    return made_stream(session, [channel or meter()], t_ns, [values], rate_hz=1.0)


def page(session: Path) -> str:
    summary = write_results(session)
    return write_page(session, load_manifest(session), summary).read_text(encoding="utf-8")


def training(session: Path) -> Summary:
    """100 W, 200 W in the run, 30 s of 60."""
    file = each_second(session, [100.0] * 15 + [200.0] * 30 + [100.0] * 15)
    made_marks(session, [("run", at(15), at(45)), ("epoch", at(16), at(30)), ("epoch", at(30), at(44))])
    made_manifest(session, [file], (at(0), at(60)), phase_sources=MARKS)
    return write_results(session)


def test_the_answer_comes_first_and_every_part_is_there(tmp_path: Path) -> None:
    training(tmp_path)
    text = page(tmp_path)
    elements = Elements(text)
    headline = re.search(r"<h1>(.*?)</h1>", text, re.DOTALL)
    assert headline is not None
    said = " ".join(re.sub(r"<[^>]*>", "", headline[1]).split())
    # 200 W × 30 s = 6 kJ; 1 % of it, rectangular: u = 6 kJ × 0.01/√3, U = 69 J
    assert re.fullmatch(r"Training used 6\.00\d? ± 0\.\d+ kJ of electrical energy and took 30\.0 s\.", said)
    first = next(tag for tag, _ in elements.found if tag in ("h1", "h2", "section"))
    assert first == "h1"
    ids = [attributes.get("id") for tag, attributes in elements.found if tag == "section"]
    assert ids[-6:] == ["time", "energy", "metrics", "uncertainty", "sampling", "again"]
    targets = {str(a["href"])[1:] for tag, a in elements.found if tag == "a"}
    assert targets <= {a.get("id") for _, a in elements.found}
    for term in ("meter", "edge", "sync", "window", "step", "gap"):
        assert f'<span class="name">{term} ' in text
    assert "power-director report" in elements.text


def test_nothing_is_fetched_and_only_its_own_scripts_may_run(tmp_path: Path) -> None:
    training(tmp_path)
    elements = Elements(page(tmp_path))
    for tag, attributes in elements.found:
        assert not {"src", "srcset", "data", "action", "poster", "background"} & set(attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed", "form", "base")
        assert str(attributes.get("href", "#")).startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = (a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none';")
    for script in elements.scripts[2:]:  # the first two are data
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_the_same_session_gives_the_same_bytes(tmp_path: Path) -> None:
    made_gpu_training(tmp_path / "s", 60.0, gpus=2, epochs=3)
    shutil.copytree(tmp_path / "s", tmp_path / "elsewhere" / "s")
    first, again = page(tmp_path / "s"), page(tmp_path / "s")
    assert first == again
    assert first == page(tmp_path / "elsewhere" / "s")


def test_what_the_wall_sees_and_no_device_explains_is_its_own_bar(tmp_path: Path) -> None:
    wall = each_second(tmp_path, [300.0] * 20)
    gpu = made_stream(
        tmp_path,
        [meter("gpu0", scope="gpu")],
        ORIGIN_NS + (np.arange(20) + 1) * S,
        [np.full(20, 180.0)],
        rate_hz=1.0,
        number=1,
    )
    made_manifest(tmp_path, [wall, gpu], (at(0), at(20)))
    text = page(tmp_path)
    bar = re.search(r"not explained.*?bar unexplained.*?width:([\d.]+)%.*?class=\"figure\">(.*?) ", text, re.DOTALL)
    assert bar is not None
    assert float(bar[1]) == pytest.approx(100 * 2400 / (6000 + 2 * 60 / math.sqrt(3)), rel=0.01)  # of 300 W × 20 s + U
    assert bar[2] == "2.400"


def test_an_estimate_says_so_in_the_headline(tmp_path: Path) -> None:
    file = each_second(tmp_path, [50.0] * 20, channel=meter("package-0", scope="package", estimate=True))
    made_manifest(tmp_path, [file], (at(0), at(20)))
    text = page(tmp_path)
    headline = re.search(r"<h1>(.*?)</h1>", text, re.DOTALL)
    assert headline is not None and ">ESTIMATE</abbr>" in headline[1]
    assert text.count(">ESTIMATE</abbr>") > 4
    assert "Nothing here was measured" in text


def test_inferences_per_watt(tmp_path: Path) -> None:
    file = each_second(tmp_path, [200.0] * 60)
    summary = training(tmp_path / "other")
    run = msgspec.structs.replace(
        next(p for p in summary.phases if p.name == "run"),
        attributes={"scenario": "Offline"},
        work={"samples": 12_000.0},
    )
    made_manifest(tmp_path, [file], (at(0), at(60)))
    phases = [run if p.name == "run" else p for p in summary.phases]
    answer = headline(msgspec.structs.replace(summary, phases=phases, metrics=session_metrics(phases, Factors())))
    assert answer.before == "The system served"
    assert answer.figure.startswith("2.0")  # 12000 samples in 30 s at 200 W: 400/s / 200 W
    assert answer.after == "inferences per second for each watt that it drew."


# Envelopes


def test_a_peak_of_a_second_stays_in_an_hour(tmp_path: Path) -> None:
    manifest = made_gpu_training(tmp_path, 3600.0, gpus=2, epochs=5)
    data = plot_data(tmp_path, manifest)
    gpu1 = next(e for e in data.power if e.name == "node0/gpu1")
    assert np.nanmax(gpu1.most) == PEAK_WATTS
    peak_s = gpu1.middle_s[gpu1.most == PEAK_WATTS]
    assert peak_s.min() == pytest.approx(3600 * SPIKE_SHARE, abs=0.3)
    assert peak_s.max() == pytest.approx(3600 * SPIKE_SHARE + 1, abs=0.3)


def test_what_a_meter_tells_besides_power_is_drawn_and_what_others_tell_is_not(tmp_path: Path) -> None:
    own = meter().device
    kinds = [
        (own, "voltage", "V"),
        (own, "power_factor", ""),
        (own, "uncertainty", "%"),
        ("fan", "voltage", "V"),
    ]
    beside = [
        Channel(name=f"m/{d}/{q}", device=d, quantity=q, unit=u, kind="gauge", scope="none", window_s=1.0)  # type: ignore[arg-type]
        for d, q, u in kinds
    ]
    t_ns = ORIGIN_NS + (np.arange(60) + 1) * S
    values = [np.full(60, value) for value in (200.0, 230.0, 0.95, 0.4, 12.0)]
    file = made_stream(tmp_path, [meter(), *beside], t_ns, values, rate_hz=1.0)
    manifest = made_manifest(tmp_path, [file], (at(0), at(60)))
    found = {(e.quantity, e.unit): float(np.nanmean(e.mean)) for e in plot_data(tmp_path, manifest).meters}
    assert found == pytest.approx({("voltage", "V"): 230.0, ("power_factor", ""): 0.95, ("uncertainty", "%"): 0.4})
    html = page(tmp_path)
    assert "What meters tell besides" in html and '<figcaption>Power factor <span class="unit"></span>' in html


def test_mean_times_width_is_the_energy(tmp_path: Path) -> None:
    file = each_second(tmp_path, 100 + 50 * np.sin(np.arange(600) / 9))
    manifest = made_manifest(tmp_path, [file], (at(100), at(500)))
    summary = write_results(tmp_path)
    (envelope,) = plot_data(tmp_path, manifest).power
    inside = (envelope.middle_s > 0) & (envelope.middle_s < 400)
    assert summary.phases[0].total is not None
    joules = float(envelope.mean[inside].sum() * envelope.bin_ns * 1e-9)
    assert joules == pytest.approx(summary.phases[0].total.joules, rel=2e-3)


def test_a_gap_of_three_hours_and_missing_readings_are_nothing_and_not_zero(tmp_path: Path) -> None:
    n = 8 * 3600
    t = np.arange(n)
    keep = (t < 3600) | (t >= 4 * 3600)
    status = np.where((t > 1000) & (t < 1200), Status.MISSING, Status.NEW).astype(np.uint8)[keep]
    watts = np.where(status == Status.MISSING, np.nan, 250.0)
    file = made_stream(tmp_path, [meter()], ORIGIN_NS + (t[keep] + 1) * S, [watts], rate_hz=1.0, statuses=[status])
    manifest = made_manifest(tmp_path, [file], (at(0), at(n)))
    (envelope,) = plot_data(tmp_path, manifest).power
    middle = envelope.middle_s
    for low, high in ((3602, 4 * 3600 - 2), (1003, 1197)):
        assert np.isnan(envelope.mean[(middle > low) & (middle < high)]).all()
    seen = envelope.mean[np.isfinite(envelope.mean)]
    assert seen.min() == pytest.approx(250.0) and seen.max() == pytest.approx(250.0)
    assert "61.8% of the time was measured" in page(tmp_path)


def test_when_and_why_clocks_were_held_back(tmp_path: Path) -> None:
    data = plot_data(tmp_path, made_gpu_training(tmp_path, 600.0, gpus=2))
    gpu0, gpu1 = data.throttling
    assert gpu0.seconds == pytest.approx({"heat": 30.0, "power limit": 200.0, "hardware": 30.0}, abs=1.01)
    (interval,) = gpu0.intervals["power limit"]
    assert interval == pytest.approx((200, 400), abs=1.01)
    assert not any(gpu1.seconds.values()) and not any(gpu1.intervals.values())
    assert [e.name for e in data.temperatures] == ["node0/gpu0 temperature", "node0/gpu1 temperature"]
    assert [e.unit for e in data.clocks] == ["MHz", "MHz"]


def envelope(mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> Envelope:
    return Envelope("a", "c", "d", "gpu", "power", "W", False, 0, 1e9, mean - low, mean, mean + high)


def decode(header: Header, content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As the docstring of embed.py describes it."""
    planes = np.frombuffer(content, np.uint8).reshape(6, header.n).astype(np.int64)
    change, down, up = (planes[2 * i] + 256 * planes[2 * i + 1] for i in range(3))
    number = np.cumsum(change) % 65536
    mean = np.where(number == NOT_MEASURED, np.nan, (header.base + number) * header.step)
    return mean - down * header.step, mean, mean + up * header.step


values = st.floats(-1e6, 1e6) | st.just(math.nan) | st.floats(0, 1e-3)
spreads = st.floats(0, 1e5)


@given(st.lists(st.tuples(values, spreads, spreads), min_size=1, max_size=200))
@settings(max_examples=60, deadline=None)
def test_values_come_back_within_half_a_step(rows: list[tuple[float, float, float]]) -> None:
    mean, low, high = (np.array(column) for column in zip(*rows, strict=True))
    if np.isnan(mean).all():
        return
    given_ = envelope(mean, low, high)
    (header,), text = encode([given_])
    found = decode(header, zlib.decompress(base64.b64decode(text)))
    largest = float(np.nanmax(np.abs([given_.least, given_.most])))
    span = float(np.nanmax(given_.most) - np.nanmin(given_.least))
    assert header.step <= max(5 * span / LEVELS, 5e-6 * largest, 1e-8)
    for known, back in zip((given_.least, given_.mean, given_.most), found, strict=True):
        assert np.array_equal(np.isnan(known), np.isnan(back))
        assert np.nanmax(np.abs(known - back)) <= header.step * 0.5001 + 1e-9 * largest


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
@settings(max_examples=40, deadline=None)
def test_embedded_json_cannot_end_its_element(content: object) -> None:
    text = json_in_html(content)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == content


# Any session


def test_hostile_names_are_shown_and_not_run(tmp_path: Path) -> None:
    made_hostile(tmp_path, HOSTILE)
    manifest = load_manifest(tmp_path)
    summary = write_results(tmp_path)
    text = write_page(tmp_path, manifest, summary).read_text(encoding="utf-8")
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 4
    assert not {"img", "raw"} & {tag for tag, _ in elements.found}
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in elements.text and "👩‍🚀" in elements.text
    assert "\u202e" not in text and "\u2028" not in text and "\\u202eltr" in elements.text
    assert "<!-- <![CDATA[ -->" in elements.text
    plots = json.loads(elements.scripts[0])
    assert any(name.startswith("<script>window.hacked") for name in plots["names"])
    assert max(len(name) for name in plots["names"]) <= 120


@pytest.mark.parametrize("what", ["no power", "no phases", "one reading", "nothing was run", "no reading"])
def test_a_session_that_holds_little(what: str, tmp_path: Path) -> None:
    watts = {"one reading": [80.0], "no reading": []}.get(what, [80.0] * 30)
    channel = meter(quantity="temperature", unit="°C", scope="none") if what == "no power" else meter()
    file = each_second(tmp_path, watts, channel=channel)
    if what not in ("no phases", "nothing was run"):
        made_marks(tmp_path, [("run", at(0), at(1))])
    span = None if what == "nothing was run" else (at(0), at(30))
    made_manifest(tmp_path, [file], span, phase_sources=MARKS)
    text = page(tmp_path)
    answer = re.search(r"<h1>(.*?)</h1>", text, re.DOTALL)
    assert answer is not None
    if what in ("no power", "no reading"):
        assert "No energy can be given" in answer[1]
        assert "not measured" in text or "No device was measured" in text
        assert not re.search(r"\b0\.?0* (J|W|kWh)\b", Elements(text).text)
    else:
        assert "used" in answer[1]
    assert ("nothing to draw" in text) == (what == "no reading")


@pytest.mark.long
def test_the_page_of_a_hundred_thousand_phases(tmp_path: Path) -> None:
    file = each_second(tmp_path, [100.0] * 1000)
    edges = np.linspace(at(1), at(999), 100_001).astype(np.int64).tolist()
    steps = [("step" if i % 2 else f"name {i}", edges[i], edges[i + 1]) for i in range(100_000)]
    made_marks(tmp_path, steps)
    made_manifest(tmp_path, [file], (at(0), at(1000)), phase_sources=MARKS)
    assert len(page(tmp_path)) < 1_000_000


def phase_table(begin_s: np.ndarray, end_s: np.ndarray, names: list[str]) -> PhaseTable:
    """The whole first, then phases of one lane and one depth."""
    n = len(begin_s)
    return PhaseTable(
        begin_ns=ORIGIN_NS + np.rint(np.append(0, begin_s) * S).astype(np.int64),
        end_ns=ORIGIN_NS + np.rint(np.append(1000, end_s) * S).astype(np.int64),
        name_code=np.append(0, 1 + np.arange(n) % len(names)).astype(np.int32),
        index=np.full(n + 1, -1),
        parent=np.full(n + 1, -1),
        depth=np.append(0, np.ones(n)).astype(np.int16),
        lane_code=np.append(0, np.ones(n)).astype(np.int32),
        rank=np.full(n + 1, -1, np.int32),
        flags=np.zeros(n + 1, np.uint16),
        time_bound_ns=np.zeros(n + 1, np.int64),
        work={},
        names=["command", *names],
        lanes=["", "1:1"],
        host_code=np.zeros(n + 1, np.int32),
        hosts=[""],
    )


def test_a_hundred_thousand_phases_have_room(tmp_path: Path) -> None:
    edges = np.linspace(1, 999, 100_001)
    write_phases(tmp_path / "phases.parquet", phase_table(edges[:-1], edges[1:], [f"n{i}" for i in range(50_000)]))
    strip = phase_strip(tmp_path, ORIGIN_NS)
    assert len(strip.rows) <= MOST_ROWS and all(len(row) <= 2 * MOST_BLOCKS + 1 for row in strip.rows)
    assert sum(block.count for row in strip.rows[1:] for block in row) == 100_000
    assert strip.rows[1][0].begin_s == pytest.approx(1.0) and strip.rows[1][-1].end_s == pytest.approx(999.0)


def test_a_long_phase_stands_alone_among_short_ones(tmp_path: Path) -> None:
    short = 500 + np.arange(4000) / 10
    table = phase_table(np.append(1, short), np.append(500, short + 0.05), ["only"])
    write_phases(tmp_path / "phases.parquet", table)
    first, *rest = phase_strip(tmp_path, ORIGIN_NS).rows[1]
    assert (first.count, first.begin_s, first.end_s) == (1, 1.0, pytest.approx(500.0))
    assert sum(block.count for block in rest) == 4000 and {block.name for block in rest} == {"only"}


def test_a_reading_at_an_odd_instant_does_not_squeeze_the_rest(tmp_path: Path) -> None:
    t_ns = np.concatenate((ORIGIN_NS + np.arange(60) * S, [ORIGIN_NS + 10**9 * S]))
    file = made_stream(tmp_path, [meter()], t_ns, [np.full(61, 10.0)], rate_hz=1.0)
    data = plot_data(tmp_path, made_manifest(tmp_path, [file], (at(0), at(60))))
    assert data.end_ns == 120 * S


# The commands


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "director.cli", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_report_writes_the_page_and_says_where(tmp_path: Path) -> None:
    training(tmp_path)
    done = report(tmp_path)
    assert done.returncode == 0
    assert f"{tmp_path / 'report.html'}" in done.stderr
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    training(tmp_path)
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "something").touch()
    (tmp_path / "summary.json").unlink()
    done = report("--quiet", tmp_path)
    assert done.returncode == 0
    assert "warning: there is no report page: IsADirectoryError" in done.stderr
    assert (tmp_path / "summary.json").exists()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("what", ["newer", "older", "traces gone", "marks gone", "phases cut"])
def test_sessions_of_another_version_or_half_deleted(what: str, tmp_path: Path) -> None:
    training(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_bytes())
    if what == "newer":
        manifest["schema_version"] = 99
    if what == "older":  # fields that came later are not there
        for name in ("factors", "missing", "checksums", "environment", "repeat_index", "replay_clock"):
            del manifest[name]
    path.write_text(json.dumps(manifest))
    if what == "traces gone":
        shutil.rmtree(tmp_path / "traces")
    if what == "marks gone":
        shutil.rmtree(tmp_path / "marks")
    if what == "phases cut":
        (tmp_path / "phases.parquet").write_bytes(b"PAR1")
    done = report("--quiet", tmp_path)
    assert "Traceback" not in done.stderr
    written = (tmp_path / "report.html").exists()
    assert (done.returncode, written) == ((2, False) if what in ("newer", "traces gone") else (0, True))
    if not written:
        assert str(tmp_path) in done.stderr


def test_a_series_has_a_page_that_leads_to_its_runs(tmp_path: Path) -> None:
    for number, seconds in enumerate((30, 32, 34), 1):
        folder = tmp_path / f"run-00{number}"
        file = each_second(folder, [100.0] * 60)
        made_marks(folder, [("run", at(10), at(10 + seconds))])
        made_manifest(folder, [file], (at(0), at(60)), phase_sources=MARKS)
    runs = [{"directory": f"run-00{i}", "status": 0} for i in (1, 2, 3)]
    series = {"schema_version": 1, "command": ["job"], "created_wall_ns": 0, "planned": 3, "label": "<b>x"}
    (tmp_path / "series.json").write_text(json.dumps({**series, "runs": runs}))
    report_series(tmp_path, ReportOptions(quiet=True))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    elements = Elements(text)
    links = [str(a["href"]) for tag, a in elements.found if tag == "a" and not str(a["href"]).startswith("#")]
    assert links == [f"./run-00{i}/report.html" for i in (1, 2, 3)]
    assert all((tmp_path / link).exists() for link in links)
    said = " ".join(elements.text.split())
    assert re.search(r"Training used 3\.\d+ ± 0\.\d+ kJ on average, in 32\.000 s", said)
    assert "fastest, dropped" in said and "slowest, dropped" in said and "<b>x" in said
    assert not elements.scripts
    report_series(tmp_path, ReportOptions(quiet=True))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
