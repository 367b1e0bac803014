"""Draws a session's plots into files, one each, for papers and slides: the same session gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from director.answers.summary import Summary
from director.report_files.bar_plots import bar_plots
from director.report_files.time_plots import time_plots
from director.report_page.template import shown
from director.session.files import write_durably
from director.session.manifest import Manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: Any = {  # some versions of matplotlib type every key
    "svg.hashsalt": "ml-power-agent",  # identifiers within the file, else drawn by lot
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names with $ are no formulas
    "path.simplify": False,  # it may cut peaks
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "savefig.dpi": 200,
}
NO_DATE_OR_VERSION = {
    "svg": {"Date": None, "Creator": None, "Type": None, "Format": None},
    "png": {"Software": None},
}


def write_plots(session: Path, manifest: Manifest, summary: Summary, folder: Path, form: str) -> list[Path]:
    """Write every plot that has something to show, and return the files.

    Args:
        session: whose results have just been computed.
        manifest: of that session.
        summary: of that session.
        folder: is made where it is missing; files of the same name are replaced.
        form: "svg" or "png".

    Raises:
        SessionError: a trace is missing or damaged.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = _figures(session, manifest, summary)
    return save_figures(((folder / f"{name}.{form}", figure) for name, figure in figures), form)


def save_figures(figures: Iterator[tuple[Path, Figure]], form: str) -> list[Path]:
    """Write figures, which are drawn in the project's style as they are asked for, and return the files.

    Raises:
        OSError: a file cannot be written.
    """
    paths = []
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of names in scripts that the font lacks
        matplotlib.rcdefaults()  # the user's own settings would change the bytes
        matplotlib.rcParams.update(STYLE)
        for path, figure in figures:
            content = io.BytesIO()
            figure.savefig(content, format=form, metadata=NO_DATE_OR_VERSION[form])
            write_durably(path, content.getvalue())
            paths.append(path)
    return paths


def _figures(session: Path, manifest: Manifest, summary: Summary) -> Iterator[tuple[str, Figure]]:
    title = shown(summary.label or summary.session, 60)
    yield from time_plots(session, manifest, title, summary)
    yield from bar_plots(title, summary)
