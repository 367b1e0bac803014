"""How Sphinx makes the site of these pages: `make docs`.

The pages are plain Markdown that reads as well in a repository's viewer, so formulas are text, and the site fetches
nothing from the network. The navigation is made from the links of index.md: a page that is linked there is in it.
"""

from __future__ import annotations

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "ML power agent"
version = release = version_of("ml-power-agent")
html_title = project
extensions = ["myst_parser"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
highlight_language = "none"  # of indented blocks: formulas and commands, which may wrap
myst_heading_anchors = 4

SECTION = re.compile(r"^## (?P<caption>.*)\n(?P<text>(?:(?!## ).*\n?)*)", re.MULTILINE)
PAGE = re.compile(r"\]\((?P<page>[^)#:]+)\.md\)")


def add_navigation(app: Sphinx, document: str, source: list[str]) -> None:
    """Append one hidden table of contents per section of the index, in the order of its links."""
    if document != "index":
        return
    seen: set[str] = set()
    for section in SECTION.finditer(source[0]):
        pages = [page for page in dict.fromkeys(PAGE.findall(section["text"])) if page not in seen]
        seen.update(pages)
        entries = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {section['caption']}\n\n{entries}\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
