"""`report --plots`: files that hold the session's figures, gaps as gaps, the same bytes each time."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from made_gpu_training import PEAK_WATTS, SPIKE_SHARE, made_gpu_training
from made_meter_session import made_hostile, made_little, made_training

from director.answers.number_text import figure_text
from director.answers.results import write_results
from director.answers.summary import Summary
from director.cli import main
from director.report_page.plot_data import Envelope
from director.session.files import load_manifest

pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install '.[plots]'")

from director.report_files.plots import write_plots
from director.report_files.time_plots import MOST_COLUMNS, columns

SVG = "{http://www.w3.org/2000/svg}"


def draw(session: Path, form: str = "svg", folder: str = "plots") -> tuple[Summary, dict[str, Path]]:
    summary = write_results(session)
    paths = write_plots(session, load_manifest(session), summary, session / folder, form)
    return summary, {path.stem: path for path in paths}


def texts(path: Path) -> list[str]:
    """All text of an SVG, and that it is one."""
    root = ET.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    assert not [e.tag for e in root.iter() if e.tag in (f"{SVG}script", f"{SVG}foreignObject")]
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, dict[str, Path]]:
    """Plots of a training of a minute on two GPUs."""
    session = tmp_path_factory.mktemp("gpus")
    made_gpu_training(session, 60.0, gpus=2, epochs=3)
    return draw(session)


def test_every_plot_of_the_page_is_a_file_that_says_what_the_summary_says(
    gpus: tuple[Summary, dict[str, Path]],
) -> None:
    summary, plots = gpus
    assert set(plots) == {
        *("power-wall", "power-package", "power-gpu", "temperature", "clocks"),
        *("energy-by-phase", "energy-by-device", "uncertainty"),
    }
    run = next(phase for phase in summary.phases if phase.name == "run")
    told = texts(plots["energy-by-device"])
    for figure in [*run.components, *run.not_explained]:
        assert figure.joules is not None
        assert figure_text(figure.joules, figure.expanded_joules, "J") in told
    assert "wall not explained" in told
    assert run.total is not None and run.total.joules is not None
    told = texts(plots["energy-by-phase"])
    assert figure_text(run.total.joules, run.total.expanded_joules, "J") in told
    assert any(text.startswith("epoch ×3") for text in told)
    part = figure_text(2 * run.total.terms["meter"], None, "J")
    assert any(text.startswith(part) for text in texts(plots["uncertainty"]))
    told = texts(plots["power-gpu"])
    assert {"gpu0", "gpu1", "run", "epoch"} <= set(told)
    assert "clocks held back: heat" in texts(plots["clocks"])
    assert not [name for name, path in plots.items() if any("ESTIMATE" in text for text in texts(path))]


def test_pngs_have_a_printed_columns_width_and_no_date(tmp_path: Path) -> None:
    _, plots = draw(made_training(tmp_path), "png")
    assert len(plots) == 5
    for path in plots.values():
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width == 1440 and 200 < height < 2200  # 7.2 in at 200 dpi, less than a page high
        assert not re.search(rb"tEXt|iTXt|tIME|zTXt|atplotlib", content)


def test_the_same_bytes_again_whatever_the_users_own_settings(tmp_path: Path) -> None:
    made_little(tmp_path, "only estimates")
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: path\n")
    line = [sys.executable, "-m", "director.cli", "report", "--quiet", str(tmp_path), "--plots", "plots"]
    subprocess.run(line, cwd=tmp_path, check=True, timeout=60)  # where the settings are
    found = {path.stem: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert found == {name: path.read_bytes() for name, path in draw(tmp_path, folder="again")[1].items()}
    assert len(found) == 4
    assert not any(re.search(rb"<dc:date>|matplotlib v", content) for content in found.values())


def test_columns_keep_peaks_means_and_gaps() -> None:
    bins = 3 * MOST_COLUMNS
    mean = np.full(bins, 100.0)
    mean[600:1200] = np.nan
    most = mean + 1
    most[3001] = PEAK_WATTS
    mean[3001] = 400.0
    envelope = Envelope("a", "c", "d", "gpu", "power", "W", False, 0, 1e9, mean - 1, mean, most)
    edges_s, least, middle, top = columns(envelope)
    assert (len(edges_s), edges_s[0], edges_s[-1]) == (MOST_COLUMNS + 1, 0.0, bins)
    assert np.isnan(middle[200:400]).all() and np.isnan(least[200:400]).all() and np.isfinite(middle[400:]).all()
    assert top[1000] == PEAK_WATTS and middle[1000] == pytest.approx(200.0)
    assert (middle[:200] == 100.0).all()


def line_points(path: Path, colour: str = "#0b4f8a") -> list[list[tuple[float, float]]]:
    """The parts of the thin line, each without a break."""
    parts: list[list[tuple[float, float]]] = []
    for element in ET.parse(path).getroot().iter(f"{SVG}path"):
        style = element.get("style", "")
        if f"stroke: {colour}" in style and "fill: none" in style and "square" in style:
            for part in re.split("M", element.get("d", ""))[1:]:
                numbers = [float(n) for n in re.findall(r"-?[\d.]+", part)]
                parts.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return parts


def test_a_gap_is_a_break_in_the_line_and_a_peak_stands_where_it_was(
    gpus: tuple[Summary, dict[str, Path]], tmp_path: Path
) -> None:
    gpu1 = line_points(gpus[1]["power-gpu"])[1]
    left, right = gpu1[0][0], gpu1[-1][0]
    highest = min(gpu1, key=lambda point: point[1])
    assert (highest[0] - left) / (right - left) == pytest.approx((60 * SPIKE_SHARE + 3.5) / 66, abs=0.02)
    _, plots = draw(made_little(tmp_path, "some are missing"))
    assert len(line_points(plots["power-package"])) == 2


@pytest.mark.parametrize("what", ["no power", "no reading", "one reading", "only estimates", "nothing was run"])
def test_a_session_that_holds_little(what: str, tmp_path: Path) -> None:
    _, plots = draw(made_little(tmp_path, what))
    energies = {"energy-by-phase", "energy-by-device", "uncertainty"}
    drawn = {"no power": {"temperature"}, "no reading": set(), "one reading": {"power-package"}}
    expected = drawn.get(what, {"power-package", *energies})
    assert set(plots) == expected
    for path in plots.values():
        said = [text for text in texts(path) if "ESTIMATE" in text]
        assert bool(said) == (what == "only estimates")
    if what == "one reading":
        assert len(line_points(plots["power-package"])) == 1


def test_hostile_names_are_text(tmp_path: Path) -> None:
    _, plots = draw(made_hostile(tmp_path))
    told = [text for path in plots.values() for text in texts(path)]
    for begin in ("<script>window.hacked", "_underscore 🔥", "@someone #1 &lt; $\\frac", '=HYPERLINK("http'):
        assert any(begin in text for text in told), begin
    assert max(map(len, told)) < 200


def test_plots_of_a_series_lie_by_run(tmp_path: Path) -> None:
    names = ["run-001", "run-002"]
    for name in names:
        made_little(tmp_path / name, "one reading")
    runs = [{"directory": name, "status": 0} for name in names]
    series = {"schema_version": 1, "command": ["job"], "created_wall_ns": 0, "planned": 2, "runs": runs}
    (tmp_path / "series.json").write_text(json.dumps(series))
    assert main(["report", "--quiet", str(tmp_path), "--plots", str(tmp_path / "plots"), "--plot-format", "png"]) == 0
    found = {path.relative_to(tmp_path / "plots").as_posix() for path in (tmp_path / "plots").rglob("*.*")}
    assert found == {"run-001/power-package.png", "run-002/power-package.png"}


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_training(tmp_path)
    (tmp_path / "file").touch()
    assert main(["report", str(tmp_path), "--quiet", "--plots", str(tmp_path / "file")]) == 1
    assert "File exists" in capsys.readouterr().err


def test_without_matplotlib_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    made_training(tmp_path)
    program = (
        "import sys, importlib.machinery as m\n"
        "class Without(m.PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        return None if name == 'matplotlib' else m.PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path = [Without if f is m.PathFinder else f for f in sys.meta_path]\n"
        "from director.cli import main\n"
        f"sys.exit(main(['report', {str(tmp_path)!r}, '--plots', {str(tmp_path / 'plots')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'matplotlib" in done.stderr and not (tmp_path / "plots").exists()
