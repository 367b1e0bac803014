from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from power_agent.tick_ledger import TickLedger, TickTotals

MS = 1_000_000


def read(ledger: TickLedger, now_ns: int) -> int:
    """A read begins; the next deadline."""
    ledger.note_read(now_ns)
    return ledger.next_after(now_ns)


def test_a_read_in_time_is_taken_and_a_tenth_of_the_period_is_in_time() -> None:
    ledger = TickLedger(start_ns=500, period_ns=100 * MS)
    assert read(ledger, 500) == 500 + 100 * MS
    assert read(ledger, 500 + 110 * MS) == 500 + 200 * MS
    assert read(ledger, 500 + 210 * MS + 1) == 500 + 300 * MS
    totals = ledger.totals(500 + 211 * MS)
    assert (totals.due, totals.taken, totals.late, totals.missed) == (3, 2, 1, 0)


def test_a_millisecond_is_always_in_time() -> None:
    ledger = TickLedger(start_ns=0, period_ns=2 * MS)
    read(ledger, 1 * MS)
    read(ledger, 2 * MS + MS + 1)
    totals = ledger.totals(3 * MS + 1)
    assert (totals.taken, totals.late) == (1, 1)


def test_the_histogram_counts_by_powers_of_two_of_microseconds() -> None:
    ledger = TickLedger(start_ns=0, period_ns=10**13)
    for tick, late_ns in enumerate([0, 999, 1000, 1999, 2000, 1_024_000, 9_999 * 10**9]):
        read(ledger, tick * 10**13 + late_ns)
    bins = ledger.totals(6 * 10**13).lateness_log2_us
    assert len(bins) == 32
    # < 1 µs twice, < 2 µs twice, < 4 µs once, < 2048 µs once, and what is beyond the last bin in the last
    assert {k: n for k, n in enumerate(bins) if n} == {0: 2, 1: 2, 2: 1, 11: 1, 31: 1}


def test_a_device_that_hangs_misses_the_ticks_that_pass() -> None:
    ledger = TickLedger(start_ns=0, period_ns=100 * MS)
    read(ledger, 0)
    # At 950 ms the ticks at 100 … 800 ms have been overtaken by their successors; that at 900 ms may still be read.
    totals = ledger.totals(950 * MS)
    assert (totals.due, totals.missed) == (9, 8)
    assert read(ledger, 955 * MS) == 1000 * MS
    totals = ledger.totals(955 * MS)
    assert (totals.due, totals.taken, totals.late, totals.missed) == (10, 1, 1, 8)


def test_nothing_is_due_after_the_end() -> None:
    ledger = TickLedger(start_ns=0, period_ns=100 * MS)
    read(ledger, 0)
    ledger.end(350 * MS)
    ledger.end(900 * MS)
    assert ledger.totals(10_000 * MS).missed == 2  # at 100 and 200 ms; that at 300 ms could still have come


@settings(deadline=None)
@given(
    st.integers(-(10**12), 10**12),
    st.integers(1000, 10**10),
    st.lists(st.floats(0, 5), max_size=30),
    st.floats(0, 20),
)
def test_every_tick_is_counted_once(start_ns: int, period_ns: int, pauses: list[float], rest: float) -> None:
    """Reads follow each other by arbitrary pauses, here in periods, as if each took that long."""
    ledger = TickLedger(start_ns, period_ns)
    deadline_ns, now_ns, started = start_ns, start_ns, []
    for pause in pauses:
        now_ns = max(now_ns + int(pause * period_ns), deadline_ns)
        deadline_ns = read(ledger, now_ns)
        started.append(now_ns)
    now_ns += int(rest * period_ns)
    totals = ledger.totals(now_ns)

    # From the definition, tick by tick: the reads in [deadline, next deadline) and nothing else.
    served = {}
    for instant_ns in started:
        served.setdefault((instant_ns - start_ns) // period_ns, instant_ns)
    overtaken = (now_ns - start_ns) // period_ns
    ticks = set(range(overtaken)) | set(served)
    lateness = {tick: instant_ns - start_ns - tick * period_ns for tick, instant_ns in served.items()}
    tolerance_ns = max(period_ns / 10, MS)
    assert totals.due == len(ticks)
    assert totals.taken == sum(late_ns <= tolerance_ns for late_ns in lateness.values())
    assert totals.late == sum(late_ns > tolerance_ns for late_ns in lateness.values())
    assert totals.missed == len(ticks - set(served))
    assert totals.due == totals.taken + totals.late + totals.missed
    assert sum(totals.lateness_log2_us) == totals.taken + totals.late == len(started)


def test_a_ledger_goes_on_where_one_was_lost() -> None:
    first = TickLedger(start_ns=0, period_ns=100 * MS)
    for tick in range(5):
        first.note_read(tick * 100 * MS)
    totals = first.totals(410 * MS)
    second = TickLedger(0, 100 * MS, earlier=TickTotals(**vars(totals)))
    assert second.next_ns == 500 * MS
    second.note_read(820 * MS)  # ticks 5, 6 and 7 had nobody
    found = second.totals(830 * MS)
    assert (found.due, found.taken, found.late, found.missed) == (9, 5, 1, 3)
    assert sum(found.lateness_log2_us) == 6
