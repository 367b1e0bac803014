"""A meter behind PTDaemon: what MLPerf's own server asks of it, and its samples while they are taken."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from director.mlperf.inference.checker_versions import checker_that_fits
from director.mlperf.protocol.meter import MeterFailed, MeterSource, RangesAsked, SampleFile, StageMeter
from director.mlperf.protocol.ptd_log_file import WRITTEN_WITHIN_S, PtdLogFile
from director.mlperf.protocol.session_log import SessionLog
from director.mlperf.ptd_command import ptd_config
from drivers.analyzer_ranges import CURRENT_MARGIN
from drivers.analyzer_uncertainty import LIMIT
from drivers.ptdaemon.connection import Fetched, NotPtd, NotReached, PtdConnection, PtdLost, Refused, Silent
from drivers.ptdaemon.replies import Identity, Sample, SetRanges, Values

SETTLE_S = 10.0
TAIL_S = 2.0  # a sample after the load has ended
POLL_S = 5.0
_LONGEST_POLL_S = 80.0
_CLOCK_OFF_S = 5.0
_CLIPS_AT = 1.3 * (1 - 1e-6)  # of a range
_MAX_MESSAGES = 100_000


@dataclass(frozen=True)
class PtdSource(MeterSource):
    """Where PTDaemon listens, and what its user knows of it."""

    host: str
    port: int
    log_file: Path | None = None
    command: str | None = None
    settle_s: float = SETTLE_S
    tail_s: float = TAIL_S
    poll_s: float = POLL_S
    log_wait_s: float = WRITTEN_WITHIN_S

    def open(self, log: SessionLog) -> StageMeter:
        return PtdMeter(self, log)


class PtdMeter(StageMeter):
    """Belongs to the session's thread; a thread of its own fetches samples during a stage."""

    def __init__(self, source: PtdSource, log: SessionLog) -> None:
        """Connect, and keep what the meter is and in which ranges.

        Raises:
            MeterFailed: PTDaemon cannot be used.
        """
        self._source = source
        self._log = log
        self._lock = threading.Lock()
        self._messages: list[dict[str, str]] = []
        self._ptd_log = self._open_log()
        connection = self._connect()
        try:
            self._identity: Identity = connection.identify()
            self._initial: SetRanges = connection.ranges()
        except (PtdLost, ValueError) as error:
            connection.close()
            raise MeterFailed(f"PTDaemon does not tell its meter: {error}") from error
        self._connection: PtdConnection | None = connection
        self._version, _ = checker_that_fits(self._identity.version, "")
        if source.command is not None:
            try:
                ptd_config(source.command, self._identity.meter, self._version)
            except ValueError as error:
                connection.close()
                raise MeterFailed(str(error)) from error
        self._stage = self._mark = ""
        self._ranges: tuple[str, str] = ("SR,V,Auto", "SR,A,Auto")
        self._in_use = self._initial
        self._changed = False
        self._samples: SampleFile | None = None
        self._last_us = -1
        self._repeats = False
        self._most = Values(0.0, 0.0, 0.0, 0.0)
        self._stopping = threading.Event()
        self._poller: threading.Thread | None = None

    def begin(self, stage: str, mark: str, samples: SampleFile, ranges: RangesAsked | None) -> None:
        self._stage, self._mark, self._samples = stage, mark, samples
        self._ranges = (f"SR,V,{ranges.volts}", f"SR,A,{ranges.amperes}") if ranges else ("SR,V,Auto", "SR,A,Auto")
        self._last_us, self._most = -1, Values(0.0, 0.0, 0.0, 0.0)
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._set_ranges(self._connection)
            self._sleep(self._source.settle_s)
            self._connection.go(mark)
        except Refused as error:
            raise MeterFailed(f"PTDaemon refuses: {error}") from error
        except (PtdLost, ValueError) as error:
            self._drop_connection()
            raise MeterFailed(f"PTDaemon: {error}") from error
        self._stopping.clear()
        self._poller = threading.Thread(target=self._poll, name="ptdaemon", daemon=True)
        self._poller.start()

    def end(self) -> str:
        self._sleep(self._source.tail_s)
        self._stopping.set()
        if self._poller is not None:
            self._poller.join()
            self._poller = None
        told = {"Watts": "not known", "Uncertainty": "not known"}
        try:
            with self._lock:
                connection = self._connection
                if connection is None:
                    raise PtdLost("it was lost")
                names = ("Watts", "Uncertainty")
                if self._stage == "testing":
                    told = {name: connection.command(name) for name in names}
                connection.stop()
                self._keep(connection.fetch())
                told.update({name: connection.command(name) for name in reversed(names)})
        except OSError as error:
            self._log.warn(f"{self._stage}: samples cannot be written: {error}")
        except (PtdLost, ValueError, Refused) as error:
            self._drop_connection()
            self._log.warn(f"{self._stage}: PTDaemon did not end the measurement: {error}; what it gave before is kept")
        self._expect_uncertainty()
        self._samples = None
        return f"Analyzer 1:\nPower: {told['Watts']} \nUncertainty: {told['Uncertainty']}\n"

    def ranges_for_testing(self) -> RangesAsked | None:
        if self._most.volts <= 0 or self._most.amperes <= 0:
            return None
        return RangesAsked(f"{self._most.volts:.6f}", f"{self._most.amperes * CURRENT_MARGIN:.6f}")

    def close(self) -> None:
        connection = self._connection
        if connection is None and self._changed:
            with suppress(MeterFailed):
                connection = self._connect()
        if connection is None:
            if self._changed:
                self._log.warn("PTDaemon is gone: the meter's initial ranges could not be set again")
            return
        for unit in "VA" if self._changed else "":
            try:
                connection.set_range(self._initial.command(unit))
            except Refused as error:
                self._log.warn(f"the meter's initial range of {unit} could not be set again: {error}")
            except PtdLost as error:
                self._log.warn(f"the meter's initial ranges could not be set again: {error}")
                break
        connection.close()
        self._connection = None

    def write_logs(self, power: Path) -> None:
        target = power / "ptd_logs.txt"
        if self._ptd_log is None:
            target.write_text("PTDaemon's own log is not here: power-director was started without --ptd-log FILE.\n")
            return
        if not self._ptd_log.copy(target):
            self._log.warn(
                f"{self._ptd_log.path} ends before PTDaemon's last measurement: start PTDaemon with `stdbuf -oL`, "
                "so that it writes its log line by line"
            )

    def description(self) -> dict[str, Any]:
        command = self._source.command
        config: Any = [] if self._version.analyzer_list else {}
        if command is not None:
            config = ptd_config(command, self._identity.meter, self._version)
        return {"ptd_messages": self._messages, "ptd_config": config}

    # ---- the connection

    def _open_log(self) -> PtdLogFile | None:
        if self._source.log_file is None:
            return None
        try:
            return PtdLogFile(self._source.log_file, self._source.log_wait_s)
        except OSError as error:
            raise MeterFailed(f"--ptd-log {self._source.log_file}: {error.strerror or error}") from error

    def _connect(self) -> PtdConnection:
        where = f"{self._source.host}:{self._source.port}"
        try:
            return PtdConnection.open(self._source.host, self._source.port, record=self._record)
        except NotReached as error:
            raise MeterFailed(f"no PTDaemon at {where}: {error}; start it, or correct --ptd") from error
        except Silent as error:
            raise MeterFailed(f"PTDaemon at {where} serves another program, and one at a time; end that one") from error
        except NotPtd as error:
            raise MeterFailed(f"what listens at {where} is not PTDaemon: {error}; correct --ptd") from error
        except PtdLost as error:
            raise MeterFailed(f"PTDaemon at {where}: {error}") from error

    def _record(self, command: str, reply: str) -> None:
        if len(self._messages) < _MAX_MESSAGES:
            self._messages.append({"cmd": command, "reply": reply})
        self._log.info(f"PTDaemon was asked {command!r}, and replied {reply!r}")

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_ranges(self, connection: PtdConnection) -> None:
        self._changed = True
        volts, amperes = self._ranges
        connection.set_range(volts)
        connection.set_range(amperes)
        if amperes == "SR,A,Auto" and self._version.analyzer_list:
            connection.set_range(amperes)  # the newest checker counts two of them
        self._in_use = SetRanges(None, None, "") if volts == "SR,V,Auto" else connection.ranges()

    @staticmethod
    def _sleep(seconds: float) -> None:
        time.sleep(seconds)

    # ---- samples

    def _poll(self) -> None:
        pause_s = self._source.poll_s
        while not self._stopping.wait(pause_s):
            with self._lock:
                if self._connection is None:
                    self._begin_again()
                    continue
                try:
                    self._keep(self._connection.fetch())
                    self._watch_uncertainty(self._connection)
                except (PtdLost, ValueError) as error:
                    self._log.warn(f"{self._stage}: PTDaemon was lost: {error}; it is asked again until it answers")
                    self._drop_connection()
                except OSError as error:
                    self._log.warn(f"{self._stage}: samples cannot be written: {error}; they wait in memory")
            if self._repeats:  # PTDaemon gives all samples each time; the whole costs the square of their number
                self._repeats = False
                pause_s = min(2 * pause_s, _LONGEST_POLL_S)

    def _begin_again(self) -> None:
        """PTDaemon was lost in a stage: measure again in the same ranges; what lies between stays a gap."""
        try:
            connection = self._connect()
        except MeterFailed:
            return
        try:
            self._set_ranges(connection)
            connection.go(self._mark)
        except (PtdLost, ValueError, Refused) as error:
            self._log.warn(f"{self._stage}: PTDaemon answers again and does not measure: {error}")
            connection.close()
            return
        self._connection = connection
        self._log.warn(f"{self._stage}: PTDaemon measures again; samples between are missing")

    def _keep(self, fetched: Fetched) -> None:
        assert self._samples is not None
        if fetched.damaged:
            self._log.warn(f"{self._stage}: PTDaemon sent {fetched.damaged} lines that are no samples")
        new = [sample for sample in fetched.samples if sample.t_us > self._last_us]
        self._repeats |= len(new) < len(fetched.samples)
        if not new:
            return
        if self._last_us < 0:
            self._check_clock(new[-1])
        self._samples.write([_line(sample, self._mark) for sample in new])
        self._last_us = new[-1].t_us
        for sample in new:
            self._look_at(sample)

    def _look_at(self, sample: Sample) -> None:
        for values in sample.channels or (sample.total,):
            most = self._most
            self._most = Values(
                0.0, max(most.volts, _finite(values.volts)), max(most.amperes, _finite(values.amperes)), 0.0
            )
            if self._stage != "testing":
                continue
            pairs = (("V", values.volts, self._in_use.volts), ("A", values.amperes, self._in_use.amperes))
            for unit, value, limit in pairs:
                if limit is not None and value >= _CLIPS_AT * limit:
                    self._log.warn(f"testing: the meter clips in its range of {limit:g} {unit}; the run is lost")

    def _check_clock(self, sample: Sample) -> None:
        off_s = sample.t_us / 1e6 - time.time()
        if abs(off_s) > _CLOCK_OFF_S + self._source.poll_s:
            self._log.warn(
                f"PTDaemon's stamps are {off_s / 3600:+.2f} h off UTC: start it with TZ=UTC, or no check will pass"
            )

    # ---- uncertainty

    def _watch_uncertainty(self, connection: PtdConnection) -> None:
        if self._stage != "testing":
            return
        found = connection.statistics("Uncertainty")
        if found.most is not None and found.most > LIMIT:
            self._log.warn(f"testing: PTDaemon's uncertainty is above {LIMIT:.0%}; see server.log for its figures")
        if found.unknown:
            self._log.warn("testing: PTDaemon cannot tell the uncertainty of all samples")

    def _expect_uncertainty(self) -> None:
        """Before testing begins, say what its ranges will give."""
        if self._stage != "ranging" or self._samples is None:
            return
        asked = self.ranges_for_testing()
        if asked is None:
            self._log.warn("ranging had no valid sample: testing would run in automatic ranges, which no check accepts")
            return
        from director.mlperf.audit.uncertainty import has_formula, ranges_of, read_channels, uncertainties
        from director.mlperf.text_blocks import NoLog

        meter = self._identity.meter
        ranges = ranges_of(meter, float(asked.volts), float(asked.amperes)) if has_formula(meter) else None
        text = f"testing will ask for {asked.volts} V and {asked.amperes} A"
        if ranges is not None:
            with suppress(NoLog):
                shares = uncertainties(read_channels(self._samples.path), meter, ranges)
                shares = shares[shares == shares]
                if len(shares):
                    text += f": {ranges.volts:g} V and {ranges.amperes:g} A, uncertainty {shares.mean():.2%} on average"
                    if shares.mean() > LIMIT:
                        self._log.warn(f"{text}; {LIMIT:.0%} is allowed: more load is needed, or another meter")
        self._log.info(text)


def _finite(value: float) -> float:
    return value if 0 <= value < 1e9 else 0.0


def _line(sample: Sample, mark: str) -> str:
    """A line of spl.txt, as PTDaemon itself would write it."""
    channels = "".join(f",Ch{number},{_values(one)}" for number, one in enumerate(sample.channels, 1))
    return f"Time,{sample.stamp},{_values(sample.total)},Mark,{mark}{channels}"


def _values(one: Values) -> str:
    return f"Watts,{one.watts:.6f},Volts,{one.volts:.6f},Amps,{one.amperes:.6f},PF,{one.power_factor:.6f}"
