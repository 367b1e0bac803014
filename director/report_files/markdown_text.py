"""Text that others wrote as Markdown that shows it and does nothing else; tables and code blocks of such text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from director.report_page.template import shown

LONGEST = 1200
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&$#])")
_BLOCK_START = re.compile(r"^(\d{1,9}(?=[.)])|)([-+=.):])(?!\d)")
_MENTION = re.compile(r"@(?=\w)")
_WORD_JOINER = "\u2060"  # unseen; with it, a name after @ is nobody's name


def escaped(text: str, longest: int = LONGEST) -> str:
    """One line of plain text, as GitHub-flavoured Markdown: in a paragraph, a list, a heading or a table's cell.

    >>> escaped("<b> | `x`")
    '\\\\<b\\\\> \\\\| \\\\`x\\\\`'
    """
    line = _MARKUP.sub(r"\\\1", shown(text, longest).strip()) or '""'
    return _MENTION.sub(f"@{_WORD_JOINER}", _BLOCK_START.sub(r"\1\\\2", line))


def fenced(text: str) -> list[str]:
    """A code block of one line."""
    line = shown(text, 6000)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return [f"{fence}text", line, fence, ""]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """Lines of a table of plain text; the first `texts` columns stand left, the others, numbers, right."""
    marks = ["---" if number < texts else "---:" for number in range(len(columns))]
    cells = [[escaped(cell) if cell else "" for cell in row] for row in (columns, *rows)]
    lines = [cells[0], marks, *cells[1:]]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
