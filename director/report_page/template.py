"""Fills in the page's templates, and makes text that others wrote safe to show."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from director.answers.number_text import duration_text, share_text
from director.report_page import page_data

ASSETS = Path(__file__).parent / "assets"
_KEPT = "\u200d\ufe0f"  # what holds emoji together


def render(template: str, *, scripts: bool, **content: Any) -> str:
    """Fill in a template; only the page's own scripts may run, which are known by their hashes."""
    return "".join(render_parts(template, scripts=scripts, **content))


def render_parts(template: str, *, scripts: bool, **content: Any) -> Iterator[str]:
    """As `render`, in parts, for pages that are longer than memory should be."""
    own = [_uplot(), (ASSETS / "page.js").read_text(encoding="utf-8")] if scripts else []
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in own]
    css = (ASSETS / "page.css").read_text(encoding="utf-8")
    if scripts:
        css = (ASSETS / "uplot/uPlot.min.css").read_text(encoding="utf-8") + css
        content |= {"uplot_js": own[0], "page_js": own[1]}
    policy = Markup(" ".join(f"'sha256-{text}'" for text in hashes))
    return _environment().get_template(template).generate(css=css, script_hashes=policy, **content)


def _uplot() -> str:
    licence = (ASSETS / "uplot/LICENSE").read_text(encoding="utf-8")
    return f"/*\n{licence}*/\n" + (ASSETS / "uplot/uPlot.iife.min.js").read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "metric": page_data.metric_text,
        "duration": duration_text,
        "rate": page_data.units_of_time,
        "share": share_text,
    }
    return environment


def shown(text: str, longest: int) -> str:
    """Text that others wrote: what would turn the line round or is unseen is shown by its code; the rest is cut."""
    text = "".join(
        c if c.isprintable() or c in _KEPT else " " if c.isspace() else c.encode("unicode_escape").decode()
        for c in text[: longest + 1]
    )
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
