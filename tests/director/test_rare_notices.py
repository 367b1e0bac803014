"""How often a person is told the same, and how much in all."""

from __future__ import annotations

from director.fleet.inbox import MOST_BYTES_OF_A_HOST, Inbox
from director.fleet.rare_notices import AGAIN_S, MOST_PER_MINUTE, RareNotices
from power_agent.wire.messages import Heartbeat


def test_the_same_is_told_again_after_a_while() -> None:
    now_s, told = [0.0], list[str]()
    notices = RareNotices(told.append, clock_s=lambda: now_s[0])
    for at_s in (0.0, 1.0, AGAIN_S - 1, AGAIN_S):
        now_s[0] = at_s
        notices.tell("disk", f"at {at_s:g}")
    assert told == ["at 0", f"at {AGAIN_S:g}"]


def test_a_flood_is_cut_off_and_counted_and_takes_no_memory() -> None:
    now_s, told = [0.0], list[str]()
    notices = RareNotices(told.append, clock_s=lambda: now_s[0])
    for number in range(5000):
        notices.tell(number, f"peer {number}")
    assert len(told) == MOST_PER_MINUTE
    now_s[0] = 61.0
    notices.tell("other", "the disk is full")
    assert told[-1] == f"the disk is full ({5000 - MOST_PER_MINUTE} more such messages before this one were left out)"
    for minute in range(100):
        now_s[0] = 62.0 + 61 * minute
        for number in range(MOST_PER_MINUTE):
            notices.tell((minute, number), "x")
    assert len(notices._told_s) <= 1000


def test_a_host_that_says_too_much_leaves_room_for_others() -> None:
    inbox = Inbox()
    long = Heartbeat(t_ns=0, problems=["x" * 2000] * 20)
    taken = sum(inbox.put("loud", long) for _ in range(1000))
    assert 0 < taken * 40_000 <= MOST_BYTES_OF_A_HOST and inbox.dropped == 1000 - taken
    short = Heartbeat(t_ns=1)
    assert inbox.put("quiet", short)
    assert [inbox.take() for _ in range(taken + 2)][-2:] == [("quiet", short), None]
    assert inbox.put("loud", long), "room again"
