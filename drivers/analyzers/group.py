"""Readings of one analyzer as rows: one for each update of the meter, at the instant of that update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

from drivers.analyzer_uncertainty import LIMIT, live_share
from drivers.analyzers.channels import ENERGY_STEP_WH, MICRO, MeterChannels
from drivers.analyzers.dialog import Dialog
from drivers.analyzers.reading import Reader
from drivers.analyzers.replies import BadReply, Value
from drivers.contract import DeviceLost, Group, ReadFailed, Row, Status
from drivers.line_port import NoReply
from drivers.links import LinkLost

MOST_FAILURES = 3  # questions in a row without an answer: the meter is gone
MOST_NONSENSE = 10  # readings in a row that failed for any reason: it is not set as it was, maybe after a power cut
HIGHEST_HZ = 10.0  # of questions to a meter, which has its display to look after, too
LONGEST_WAIT_S = 0.2  # in one reading, for an update that is due: longer would hold up others
LONGEST_SILENCE_S = 60.0  # of a meter that tells of its updates, whose period is not known
_SLICE_S = 0.01
_NS = 1e9


class MeterGroup(Group):
    """All values of one meter."""

    name = "power"
    max_hz = 20.0

    def __init__(
        self,
        reader: Reader,
        dialog: Dialog,
        channels: MeterChannels,
        *,
        period_s: float | None,
        least_power_factor: float,
        opened_ns: int,
        clock_ns: Callable[[], int],
    ) -> None:
        """`opened_ns`: an instant before the meter was set up."""
        self.channels = channels.all
        self._described = channels
        self._reader = reader
        self._dialog = dialog
        self._period_ns = round(period_s * _NS) if period_s is not None else None
        self._least_factor = least_power_factor
        self._clock_ns = clock_ns
        self._is_stream = reader.description.stream is not None
        self._tells_updates = reader.freshness is not None and bool(reader.freshness.ask_updated)
        self.default_hz = _questions_hz(period_s, self._tells_updates)
        self._ahead_ns = round(1.25 / self.default_hz * _NS)  # an update within this is waited for
        self._wait_ns = round(min(LONGEST_WAIT_S, 1 / self.default_hz) * _NS)
        question = reader.freshness.ask_updated if reader.freshness is not None else ""
        # The least times that a question and its answer are on their way: the meter looks in between.
        self._to_meter_ns = round(dialog.port.seconds(len(question) + 1) * _NS)
        self._from_meter_ns = round(dialog.port.seconds(2) * _NS)
        self._quiet_ns = self._opened_ns = clock_ns()  # there was no update yet at this instant
        self._updated_ns: int | None = None  # the last update
        self._missed_answer = False  # and with it, maybe, the word of an update
        self._failed = 0  # readings in a row
        self._remarks: list[str] = []
        # Instant and raw value of each integrator: they began at 0 after this line was opened.
        self._energy = dict.fromkeys(channels.energy_places, (opened_ns, 0))
        self._last: list[Value] = []

    def read(self) -> Sequence[Row]:
        """The row of a new update, or none; of a meter that does not tell, a row each time.

        Raises:
            ReadFailed, DeviceLost: see there.
        """
        try:
            rows = self._stream_rows() if self._is_stream else self._asked_rows()
        except LinkLost as error:
            raise DeviceLost(f"the line to the meter is gone ({error})") from error
        except (NoReply, BadReply) as error:
            self._failed += 1
            if self._dialog.failures >= MOST_FAILURES or (self._is_stream and isinstance(error, NoReply)):
                raise DeviceLost(f"it does not answer any more ({error})") from error
            if self._failed >= MOST_NONSENSE:
                raise DeviceLost(f"it answers something else than it was set to ({error})") from error
            self._missed_answer = True
            raise ReadFailed(_kind(error)) from error
        self._failed = 0
        return rows

    def remarks(self) -> Sequence[str]:
        """See `Group.remarks`."""
        remarks, self._remarks = self._remarks, []
        return remarks

    # When

    def _asked_rows(self) -> list[Row]:
        asked_ns = self._clock_ns()
        if not self._tells_updates:
            values, _ = self._reader.read()
            answered_ns = self._clock_ns()
            return [self._row(asked_ns, answered_ns, values)]
        until_ns = asked_ns + self._wait_ns
        while not (updated := self._reader.has_update()) and not self._missed_answer:
            self._quiet_ns = asked_ns + self._to_meter_ns
            asked_ns = self._clock_ns()
            if asked_ns > until_ns or not self._is_due(asked_ns):
                self._check_silence(asked_ns)
                return []
        answered_ns = self._clock_ns()
        values, again = self._reader.read()
        after_ns = self._clock_ns() - self._from_meter_ns
        self._missed_answer = False
        if not updated and values == self._last:
            return []
        begin_ns, end_ns = self._quiet_ns, answered_ns - self._from_meter_ns
        if again:
            begin_ns, end_ns = asked_ns + self._to_meter_ns, after_ns
        if self._period_ns is not None:  # of several updates it shows the last
            begin_ns = max(begin_ns, end_ns - self._period_ns)
        self._quiet_ns = answered_ns  # the end of the reading says that there was none since
        self._updated_ns = (begin_ns + end_ns) // 2
        return [self._row(begin_ns, end_ns, values)]

    def _is_due(self, now_ns: int) -> bool:
        """Whether the next update is expected before the next reading."""
        if self._period_ns is None:
            return False
        return self._updated_ns is None or now_ns + self._ahead_ns > self._updated_ns + self._period_ns

    def _stream_rows(self) -> list[Row]:
        """What has been sent. Lines that had to wait for us are placed a period apart, up to the last one."""
        rows: list[Row] = []
        until_ns = self._clock_ns() + self._wait_ns
        while True:
            asked_ns = self._clock_ns()
            try:
                values = self._reader.understand(self._dialog.next_line(_SLICE_S))
            except NoReply:
                self._quiet_ns = asked_ns
                if rows or asked_ns > until_ns or not self._is_due(asked_ns):
                    break
                continue
            except BadReply as error:
                if not rows:
                    raise
                self._remarks.append(_kind(error))
                break
            end_ns = self._clock_ns()
            begin_ns = self._quiet_ns if self._period_ns is None else max(self._quiet_ns, end_ns - self._period_ns)
            rows.append(self._row(begin_ns, end_ns, values))
            self._quiet_ns = end_ns
            if end_ns > until_ns:  # what never ends is taken in pieces
                break
        if self._period_ns is not None and len(rows) > 1:
            step_ns = self._period_ns
            if self._updated_ns is not None:
                step_ns = min(step_ns, (rows[-1].t_ns - self._updated_ns) // len(rows))
            for place in range(len(rows) - 2, -1, -1):
                latest_ns = rows[place + 1].t_ns - step_ns
                if rows[place].t_ns > latest_ns + step_ns // 2:
                    rows[place] = rows[place]._replace(t_ns=latest_ns)
        if rows:
            self._updated_ns = rows[-1].t_ns
        else:
            self._check_silence(self._clock_ns())
        return rows

    def _check_silence(self, now_ns: int) -> None:
        """A meter that was switched off for a moment may answer, and not tell of updates any more."""
        silent_ns = now_ns - (self._updated_ns if self._updated_ns is not None else self._opened_ns)
        longest_ns = 3 * self._period_ns + 2 * _NS if self._period_ns is not None else LONGEST_SILENCE_S * _NS
        if silent_ns > longest_ns:
            raise DeviceLost(f"it has told of no new value for {silent_ns / _NS:.0f} s")

    # What

    def _row(self, begin_ns: int, end_ns: int, values: list[Value]) -> Row:
        t_ns = (begin_ns + end_ns) // 2
        out: list[float | int] = []
        statuses = bytearray()
        for place in self._described.places:
            value = values[place]
            out.append(value.value)
            statuses.append(value.status)
        repeated = not self._tells_updates and not self._is_stream and values == self._last
        self._last = values
        if self._described.has_sum:
            powers = [values[place] for place in self._described.power_places]
            out.append(math.fsum(value.value for value in powers))
            statuses.append(max(value.status for value in powers))
        if self._described.has_uncertainty:
            uncertainty = self._uncertainty(values)
            out.append(uncertainty if uncertainty is not None else math.nan)
            statuses.append(Status.NEW if uncertainty is not None else Status.MISSING)
        for place in self._described.energy_places:
            raw, status = self._counted(place, values[place], t_ns)
            out.append(raw)
            statuses.append(status)
        self._remark_on(values)
        if repeated:  # the same to the last digit: the meter still shows its last update
            statuses = bytearray(Status.STALE if status == Status.NEW else status for status in statuses)
        return Row(t_ns, end_ns - begin_ns, out, bytes(statuses) if any(statuses) else None)

    def _uncertainty(self, values: Sequence[Value]) -> float | None:
        """By the meter's specification, in percent of the power of all elements."""
        specification, range_watts = self._reader.description.specification, self._reader.range_watts
        if specification is None or range_watts is None:
            return None
        elements = []
        for watts, apparent, factor in self._described.power_triples(values):
            if watts.status or factor.status or any(each.status for each in apparent):
                return None
            elements.append((watts.value, math.prod(each.value for each in apparent), factor.value))
        found = live_share(specification, range_watts, elements)
        if found is None:
            return None
        if found > LIMIT:
            self._remarks.append(
                f"the uncertainty by the meter's specification is above {LIMIT:.0%}, the most that MLPerf accepts: "
                "take lower ranges"
            )
        return 100 * found

    def _counted(self, place: int, value: Value, t_ns: int) -> tuple[int, Status]:
        """The integrator's value in whole µWh."""
        if value.status:
            return 0, value.status
        number = Decimal(value.text)
        exponent = number.as_tuple().exponent
        raw = int(number * MICRO)
        (before_ns, before), self._energy[place] = self._energy[place], (t_ns, raw)
        if number and isinstance(exponent, int) and Decimal(1).scaleb(exponent) > ENERGY_STEP_WH:
            self._remarks.append(
                f"the integrator's last digit is worth more than {ENERGY_STEP_WH} Wh by now: it is no longer used"
            )
            return 0, Status.INVALID
        if self._described.most_watts is not None:
            most_wh = self._described.most_watts * (t_ns - before_ns) / _NS / 3600
            if abs(raw - before) > most_wh * MICRO + 2 * int(ENERGY_STEP_WH * MICRO):
                return 0, Status.INVALID
        return raw, Status.NEW

    def _remark_on(self, values: Sequence[Value]) -> None:
        statuses = {value.status for value in values}
        if Status.OVER_RANGE in statuses:
            self._remarks.append(
                "the load is above the meter's range: these readings are not used; take a higher range"
            )
        if self._reader.backwards:
            self._remarks.append(
                "power is negative: these readings are not used; the current terminals may be reversed"
            )
        if self._reader.misread:
            self._remarks.append(
                "power, voltage, current and power factor of a reading do not belong together: it came wrongly over "
                "the line and is not used"
            )
        least_watts = self._described.least_factor_watts
        for watts, _, factor in self._described.power_triples(values):
            if watts.status or factor.status or least_watts is None or watts.value <= least_watts:
                continue
            if abs(factor.value) < self._least_factor:
                self._remarks.append(
                    f"the power factor is below {self._least_factor:g}, down to which U holds: set the least that the "
                    "load has, as power_factor=…"
                )


def _kind(error: Exception) -> str:
    """The same words for the same mistake, so that the event log counts it."""
    if isinstance(error, NoReply):
        return "the meter did not answer in time"
    return "what came over the line is not what was asked for"


def _questions_hz(period_s: float | None, tells_updates: bool) -> float:
    """How often a meter is asked: where it tells of updates, so often that the next one is not missed by long."""
    if period_s is None:
        return 1.0
    return min(max(5.0 / period_s, 5.0), HIGHEST_HZ) if tells_updates else min(2.0 / period_s, HIGHEST_HZ)
