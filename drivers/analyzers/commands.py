"""Commands that change a meter, each checked with the meter's own error queue, where it has one."""

from __future__ import annotations

import re

from drivers.analyzers.description import Description
from drivers.analyzers.dialog import Dialog
from drivers.analyzers.replies import BadReply
from drivers.contract import Unavailable
from drivers.line_port import NoReply

MOST_ERRORS = 20  # that a queue may hold from before


class Commands:
    """To one meter."""

    def __init__(self, dialog: Dialog, description: Description) -> None:
        self.dialog = dialog
        self.title = description.title
        self._identify = description.identify
        self._ask_error = description.ask_error
        self._no_error = description.no_error

    def tell(self, command: str) -> None:
        """Send a command.

        Raises:
            Unavailable: the meter refuses it.
            LinkLost, NoReply, BadReply: see there.
        """
        self.dialog.tell(command)
        if self._ask_error:
            reply = self.dialog.ask(self._ask_error)
            if not re.match(self._no_error, reply):
                raise Unavailable(
                    f"{self.title} refuses {command!r}: {reply[:80]}",
                    "look the error up in the meter's manual; while it integrates it takes few settings",
                )

    def ask_optional(self, question: str, optional: bool) -> str | None:
        """The answer; None: there is none, which is only allowed where it is `optional`.

        Raises:
            LinkLost, NoReply, BadReply: see there.
        """
        try:
            return self.dialog.ask(question)
        except (NoReply, BadReply):
            if not optional:
                raise
            self.dialog.lose_step()
            self.empty_errors()
            return None

    def empty_errors(self) -> str:
        """Take what lies in the error queue, and return the first of it. The last answer says that all has been heard.

        Raises:
            LinkLost, NoReply, BadReply: see there.
        """
        if not self._ask_error:
            self.dialog.ask(self._identify)
            return ""
        first = ""
        for _ in range(MOST_ERRORS):
            reply = self.dialog.ask(self._ask_error)
            if re.match(self._no_error, reply):
                break
            first = first or reply[:80]
        return first


def same(sent: str, answer: str) -> bool:
    """Whether a meter's answer means what it was told."""
    sent, answer = sent.strip().upper(), answer.strip().strip('"').upper()
    if sent == answer or (is_on(sent) and is_on(answer)) or (is_off(sent) and is_off(answer)):
        return True
    try:
        return abs(float(sent) - float(answer)) <= 1e-3 * abs(float(sent))
    except ValueError:
        return len(sent) > 2 and len(answer) > 2 and (sent.startswith(answer) or answer.startswith(sent))


def is_on(answer: str) -> bool:
    """Whether it is a switch's word for on."""
    return answer.strip().upper() in ("1", "ON")


def is_off(answer: str) -> bool:
    """Whether it is a switch's word for off."""
    return answer.strip().upper() in ("0", "OFF")
