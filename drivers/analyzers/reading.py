"""One reading of a meter: what it says, whether that is new, and which of it can be believed."""

from __future__ import annotations

import math

from drivers.analyzers.description import Description
from drivers.analyzers.dialog import Dialog
from drivers.analyzers.replies import BadReply, ReplyParser, Value, bits, disagreeing, mark_over, negative
from drivers.contract import Status

_TRIES = 3  # an update in the middle of a reading: read once more


class Reader:
    """Asks a meter for its values."""

    def __init__(self, dialog: Dialog, description: Description, range_watts: float | None) -> None:
        """`range_watts` is Vr·Ar of one element; None: unknown, or chosen by the meter as it goes."""
        self.description = description
        self.range_watts = range_watts
        self.freshness = description.freshness
        self.misread = False  # the last values did not agree with each other
        self.backwards = False  # power was below 0
        self._dialog = dialog
        self._parser = ReplyParser(description)
        self._question = self._compound_question()

    def _compound_question(self) -> str:
        """All that one reading asks, in one line, where the meter understands that."""
        description, fresh = self.description, self.freshness
        if fresh is None or not description.compound:
            return ""
        return ";".join(filter(None, (fresh.ask_condition, description.read, fresh.ask_updated)))

    def has_update(self) -> bool:
        """Whether the meter has had a new value since this was asked last.

        Raises:
            LinkLost, NoReply, BadReply: see there.
        """
        assert self.freshness is not None and self.freshness.ask_updated
        return bool(bits(self._checked(self.freshness.ask_updated)) & self.freshness.updated)

    def read(self) -> tuple[list[Value], bool]:
        """All values of one update, and whether another update came while they were asked for.

        Raises:
            LinkLost, NoReply, BadReply: see there.
        """
        again = False
        for _ in range(_TRIES):
            values, updated = self._read_once()
            if not updated:
                return values, again
            again = True
        raise BadReply("the meter has new values faster than they come over the line; set a slower rate or more baud")

    def understand(self, reply: str, condition: int = 0) -> list[Value]:
        """The values of a reply; those that cannot be true together are INVALID.

        Raises:
            BadReply: see there.
        """
        items = self.description.items
        try:
            values = self._parser.values(reply)
        except BadReply:
            self._dialog.lose_step()
            raise
        wrong = disagreeing(items, values)
        if wrong:
            self._dialog.lose_step()
        backwards = negative(items, values, self.range_watts) - wrong
        self.misread, self.backwards = bool(wrong), bool(backwards)
        if wrong or backwards:
            wrong |= backwards
            values = [
                Value(math.nan, Status.INVALID) if item.element in wrong and value.status == Status.NEW else value
                for item, value in zip(items, values, strict=True)
            ]
        return mark_over(items, values, condition)

    def _read_once(self) -> tuple[list[Value], bool]:
        fresh, description = self.freshness, self.description
        if fresh is None:
            return self.understand(self._dialog.ask(description.read)), False
        if self._question:
            parts = self._checked(self._question).split(";")
            wanted = 1 + bool(fresh.ask_condition) + bool(fresh.ask_updated)
            if len(parts) != wanted:
                self._dialog.lose_step()
                raise BadReply(f"{len(parts)} answers came to {wanted} questions")
            condition = self._register(parts[0]) if fresh.ask_condition else 0
            updated = self._register(parts[-1]) if fresh.ask_updated else 0
            return self.understand(parts[int(bool(fresh.ask_condition))], condition), bool(updated & fresh.updated)
        condition = bits(self._checked(fresh.ask_condition)) if fresh.ask_condition else 0
        values = self.understand(self._dialog.ask(description.read), condition)
        return values, self.has_update() if fresh.ask_updated else False

    def _checked(self, question: str) -> str:
        return self._dialog.ask(question)

    def _register(self, text: str) -> int:
        try:
            return bits(text.partition(" ")[2] if text.startswith(":") else text)
        except BadReply:
            self._dialog.lose_step()
            raise
