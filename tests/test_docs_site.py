"""`make docs` makes a site without a warning, whose pages need no network and are all found from its navigation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site needs: pip install '.[docs]'")
pytest.importorskip("myst_parser", reason="the site needs: pip install '.[docs]'")
pytest.importorskip("furo", reason="the site needs: pip install '.[docs]'")

DOCS = Path(__file__).parent.parent / "docs"
FETCHED = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*\"")


def build(source: Path, site: Path, builder: str = "html") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", builder]
    command += ["-d", str(site.with_name("doctrees")), str(source), str(site)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(DOCS, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    pages = {str(page.relative_to(DOCS).with_suffix(".html")) for page in DOCS.rglob("*.md")}
    index = (site / "index.html").read_text()
    navigation = set(re.findall(r'class="reference internal" href="([^"#]+)"', index.split("sidebar-tree", 1)[1]))
    assert pages - navigation == {"index.html"}
    for page in pages:
        assert (site / page).exists()


def test_pages_fetch_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert FETCHED.findall(page.read_text()) == [], page.name


def test_a_broken_link_fails(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text((DOCS / "conf.py").read_text().replace('html_static_path = ["static"]', ""))
    (tmp_path / "index.md").write_text("# Index\n\n[nowhere](nowhere.md)\n")
    assert build(tmp_path, tmp_path / "site", "dummy").returncode != 0
