"""What to say where the extra `fleet` is not installed."""

from __future__ import annotations


def not_installed(error: ModuleNotFoundError) -> str:
    """The text for the user.

    Raises:
        ModuleNotFoundError: the error itself, where another module is missing: that is a mistake of ours.
    """
    if (error.name or "").partition(".")[0] != "zmq":
        raise error
    return f"{error.name} is not installed: pip install 'ml-power-agent[fleet]'"
