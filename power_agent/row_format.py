"""How the rows of a stream are laid out in bytes; `messages.Stream` describes the layout."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from drivers.contract import Channel


def row_struct(channels: Sequence[Channel]) -> struct.Struct:
    """Packs t_ns, read_ns, one value per channel, and the statuses of all channels as one bytes object."""
    values = "".join("d" if channel.kind == "gauge" else "q" for channel in channels)
    return struct.Struct(f"<qq{values}{len(channels)}s")
