"""The stages that a job is run in: ranging, where meters learn their ranges, and testing, where they keep them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from power_agent.wire.messages import Stage


def add_stage_option(parser: argparse._ActionsContainer) -> None:
    """Add `stage`: a list, as it was given."""
    parser.add_argument(
        "--stage",
        action="append",
        default=[],
        choices=("ranging", "testing"),
        help="what the job is run for; given twice, it is run twice (default: testing)",
    )


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """The stages to go through; none named: testing alone."""
    return sorted(set(stages)) or ["testing"]  # ranging comes first
