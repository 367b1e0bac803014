"""The report in other formats than the page and the terminal's table, and its plots as files."""
