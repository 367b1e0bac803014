"""The page of a session in a real browser: it opens from a file, draws, zooms, fits, and is accessible."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_fleet_session import made_training
from made_gpu_training import PEAK_WATTS, SPIKE_SHARE, made_gpu_training
from made_session import made_manifest, made_marks, made_stream

from director.answers.results import write_results
from director.report_page.page import write_page
from director.session.files import load_manifest
from director.session.manifest import PhaseSource
from drivers.contract import Channel

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
AXE = "axe-core@4.11.0"
SECONDS = 1200.0
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

OWN_READING = "willReadFrequently"  # what Chromium says to the reading of a canvas by these tests

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # as root, as in containers, Chromium has no sandbox; the pages are our own
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    manifest = made_gpu_training(folder, SECONDS, gpus=3, epochs=6)
    return write_page(folder, manifest, write_results(folder))


@pytest.fixture(scope="module")
def axe(request: pytest.FixtureRequest) -> str:
    """axe-core's source, from npm, once."""
    folder = request.config.cache.mkdir(AXE) if request.config.cache else None
    if folder is None or shutil.which("npm") is None:
        pytest.skip("no npm here to fetch axe-core with")
    script = folder / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip().splitlines()[-1:]}")
    return script.read_text(encoding="utf-8")


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file, and holds it to it that nothing else was fetched and nothing went wrong."""
    contexts, wrong = [], []

    def opened(path: Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if OWN_READING not in message.text else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.wait_for_selector("#charts[data-ready]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def view(page: Any) -> tuple[float, float]:
    """Seconds that the plots show."""
    data = page.locator("#charts").evaluate("e => [+e.dataset.a, +e.dataset.b]")
    return data[0], data[1]


def inked(page: Any, selector: str) -> float:
    """Share of a canvas that is not transparent."""
    share: float = page.locator(selector).first.evaluate(
        """canvas => {
            const { width, height } = canvas, data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
            let inked = 0;
            for (let i = 3; i < data.length; i += 4) inked += data[i] > 0;
            return inked / (width * height);
        }"""
    )
    return share


def test_it_draws_every_plot(open_page: Open, training: Path) -> None:
    page = open_page(training)
    assert page.locator("h1").inner_text().startswith("Training used ")
    assert page.locator(".plot").count() == 5  # wall, packages, GPUs, temperatures, clocks
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator("canvas").wait_for(state="visible")  # drawn when it comes into view
    assert inked(page, ".plot canvas") > 0.1
    assert inked(page, "#strip") > 0.5
    assert page.locator("#range").inner_text().startswith("Everything, 20 min")


def test_it_is_used_by_keyboard(open_page: Open, training: Path) -> None:
    page = open_page(training)
    whole = view(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#charts").focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    a, b = view(page)
    assert b - a == pytest.approx((whole[1] - whole[0]) / 4)
    page.keyboard.press("Shift+ArrowLeft")
    assert view(page)[0] == pytest.approx(a - (b - a) / 4)
    page.keyboard.press("ArrowRight")
    assert re.search(r"\d+ min .*s · run · e", page.locator("#at").inner_text())
    assert re.fullmatch(r"[\d,.]+ W( \(.*\))?", page.locator(".legend output").first.inner_text())
    page.keyboard.press("0")
    assert view(page) == whole
    page.keyboard.press("]")  # the first phase, initialisation: the first 2 %
    a, b = view(page)
    assert a < 0.02 * SECONDS < b < 0.03 * SECONDS
    page.keyboard.press("]")
    assert view(page)[1] > 0.9 * SECONDS  # the run
    page.keyboard.press("[")
    assert view(page) == pytest.approx((a, b))
    page.keyboard.press("Escape")
    page.keyboard.press("-")
    assert view(page) == whole  # no further than everything


def test_a_line_is_hidden_and_shown_by_its_button(open_page: Open, training: Path) -> None:
    page = open_page(training)
    button = page.locator(".legend button").first
    before = inked(page, ".plot canvas")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    page.evaluate("() => new Promise(requestAnimationFrame)")
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert inked(page, ".plot canvas") == pytest.approx(before, rel=0.05)


def test_dragging_zooms_and_a_peak_of_a_second_is_seen_at_every_zoom(open_page: Open, training: Path) -> None:
    page = open_page(training)
    whole = view(page)
    plot = page.locator(".plot").nth(2)  # the GPUs
    plot.scroll_into_view_if_needed()
    inner = plot.locator(".u-over")
    spike = SECONDS * SPIKE_SHARE + 0.5
    shown = page.locator('.legend button[data-panel="2"][data-line="1"] output')

    def look() -> None:
        a, b = view(page)
        box = inner.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * (spike - a) / (b - a), box["y"] + 20)
        assert f"{PEAK_WATTS:.0f}" in shown.inner_text(), (a, b)

    look()
    box = inner.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 40, steps=4)
    page.mouse.up()
    a, b = view(page)
    assert b - a == pytest.approx((whole[1] - whole[0]) / 10, rel=0.05)
    while b - a > 2:
        look()
        page.locator("#charts").focus()
        page.keyboard.press("+")
        a, b = view(page)
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + 30)
    assert view(page) == whole


def test_a_click_on_a_phase_zooms_to_it(open_page: Open, training: Path) -> None:
    page = open_page(training)
    box = page.locator("#strip").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 2.5 * 24)  # the third row: epochs
    a, b = view(page)
    assert b - a == pytest.approx(SECONDS * 0.98 / 6 * 0.9 * 1.16, rel=0.02)


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [
        (PHONE, "dark"),
        (DESKTOP, "light"),
        pytest.param(PHONE, "light", marks=pytest.mark.long),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.long),
    ],
)
def test_it_fits_and_axe_finds_nothing(
    viewport: dict[str, int], scheme: str, open_page: Open, training: Path, axe: str
) -> None:
    page = open_page(training, viewport=viewport, color_scheme=scheme)
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    found = page.evaluate(axe + "; axe.run({ resultTypes: ['violations'] })")
    told = [f"{v['id']}: {[node['html'][:200] for node in v['nodes'][:3]]}" for v in found["violations"]]
    assert told == []
    assert len(found["passes"]) > 20


def test_it_prints(open_page: Open, training: Path) -> None:
    page = open_page(training, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".buttons").is_visible()
    assert inked(page, ".plot canvas") > 0.1
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_page_without_script_says_all_but_the_plots(browser: Any, training: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(training.as_uri())
    assert page.locator("#energy .phase").count() == 5
    assert "The plots need JavaScript" in page.locator("noscript").inner_text()
    context.close()


def test_hostile_names_run_nothing(open_page: Open, tmp_path: Path) -> None:
    bad = ["<script>window.hacked = 1</script>", "</script><img src=x onerror='window.hacked = 2'>", "🔥 " + "x" * 2048]
    channels = [
        Channel(name=f"made/{i}", device=name.replace("/", ""), quantity="power", unit="W", kind="gauge", scope="gpu")
        for i, name in enumerate(bad)
    ]
    t_ns = np.arange(1, 31) * 1_000_000_000
    made_marks(tmp_path, [(name, 10**9 * i, 10**9 * (i + 9)) for i, name in enumerate(bad)])
    file = made_stream(tmp_path, channels, t_ns, [np.full(30, 50.0)] * len(bad), rate_hz=1.0)
    marks = [PhaseSource(kind="marks", file="marks")]
    made_manifest(tmp_path, [file], (0, 30 * 10**9), phase_sources=marks, label=bad[1], missing=bad)
    summary = msgspec.structs.replace(write_results(tmp_path), command=bad)
    page = open_page(write_page(tmp_path, load_manifest(tmp_path), summary), viewport=PHONE)
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.locator("#charts").focus()
    page.keyboard.press("]")
    assert page.evaluate("window.hacked") is None
    assert "<img src=x" in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_gaps_are_not_drawn(open_page: Open, tmp_path: Path) -> None:
    t_ns = np.concatenate((np.arange(0, 100), np.arange(300, 400))) * 1_000_000_000
    channel = Channel(name="made/p", device="gpu0", quantity="power", unit="W", kind="gauge", scope="gpu")
    file = made_stream(tmp_path, [channel], t_ns, [np.full(200, 50.0)], rate_hz=1.0)
    manifest = made_manifest(tmp_path, [file], (0, 400 * 10**9))
    page = open_page(write_page(tmp_path, manifest, write_results(tmp_path)))
    plot = page.locator(".plot .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    told = []
    for share in (0.1, 0.5, 0.9):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + 20)
        told.append(page.locator(".legend output").inner_text())
    assert told == ["50 W", "–", "50 W"]


@pytest.mark.parametrize(("hosts", "viewport"), [(3, DESKTOP), (3, PHONE), (40, DESKTOP)])
def test_hosts_and_their_stragglers_are_shown(
    tmp_path: Path, open_page: Open, hosts: int, viewport: dict[str, int]
) -> None:
    made_training(tmp_path, hosts, steps=6, slow=1)
    summary = write_results(tmp_path)
    page = open_page(write_page(tmp_path, load_manifest(tmp_path), summary), viewport=viewport)
    rows = page.locator("#hosts table").first.locator("tbody tr")
    assert rows.count() == hosts
    assert page.locator("#hosts").get_by_text("node1 rank 1: 6 of 6 times").count() == 1
    plot = page.locator("figure.panel", has_text="end after the median rank's")
    plot.scroll_into_view_if_needed()
    plot.locator("canvas").wait_for()
    assert plot.locator(".legend button").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
