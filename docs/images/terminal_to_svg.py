"""Draws what a terminal showed, read from stdin with its colours, as an SVG on stdout.

script -qec 'stty cols 100; power-director report SESSION' /dev/null | tr -d '\\r' |
python docs/images/terminal_to_svg.py TITLE
"""

import io
import sys

from rich.console import Console
from rich.text import Text

WIDTH_COLUMNS = 100

console = Console(record=True, width=WIDTH_COLUMNS, file=io.StringIO())
console.print(Text.from_ansi(sys.stdin.read()))
print(console.export_svg(title=sys.argv[1]))
