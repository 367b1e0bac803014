"""What tools say of the wall clock is told as it is; tools that are missing, slow or odd do no harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_agent.service import clock_state
from power_agent.service.clock_state import ClockState, kernel_state, parse_chrony, parse_ptp, read_state
from power_agent.wire.messages import Heartbeat

# chronyc -c tracking, fields as in chronyc(1): reference id, name, stratum, reference time, system time, last offset,
# RMS offset, frequency, residual frequency, skew, root delay, root dispersion, update interval, leap status
TRACKING = (
    "C0A80101,192.168.1.1,3,1700000000.123456789,0.000012345,-0.000010000,0.000020000,-12.345,0.001,0.010,"
    "0.002000000,0.000500000,64.5,Normal\n"
)
UNSYNCED = "7F7F0101,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n"
PTP = """sending: GET TIME_STATUS_NP
\t001122.fffe.334455-0 seq 0 RESPONSE MANAGEMENT TIME_STATUS_NP
\t\tmaster_offset              -42
\t\tingress_time               1700000000000000000
\t\tgmPresent                  true
\t\tgmIdentity                 aabbcc.fffe.ddeeff
"""


def test_chrony_is_told_with_its_root_distance() -> None:
    assert parse_chrony(TRACKING) == {
        "chrony": "192.168.1.1, stratum 3",
        "chrony_offset_s": "0.000012345",
        "chrony_ppm": "-12.345",
        "chrony_root_distance_s": "0.001500000",  # 2 ms / 2 + 0.5 ms
    }
    assert parse_chrony(UNSYNCED)["chrony"] == "not synchronised"
    assert parse_chrony("506 Cannot talk to daemon") == {"chrony": "its answer is not understood"}


def test_ptp_is_told_with_its_offset() -> None:
    assert parse_ptp(PTP) == {"ptp": "grandmaster aabbcc.fffe.ddeeff", "ptp_offset_ns": "-42"}
    assert parse_ptp("sending: GET TIME_STATUS_NP\n") == {"ptp": "ptp4l does not answer"}


@given(st.text() | st.lists(st.text() | st.floats().map(str), min_size=14).map(",".join))
def test_any_text_is_read(text: str) -> None:
    for parse in (parse_chrony, parse_ptp):
        assert all(isinstance(value, str) for value in parse(text).values())


def test_the_kernel_answers() -> None:
    state = kernel_state()
    assert state["kernel"] in ("synchronised", "not synchronised") and abs(float(state["kernel_ppm"])) <= 500


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_tools_are_asked_and_what_they_say_fits_into_a_heartbeat(tmp_path: Path) -> None:
    tool(tmp_path, "chronyc", f"printf '%s' '{TRACKING.replace('192.168.1.1', 'x' * 900)}'")
    tool(tmp_path, "pmc", "exit 1")
    state = read_state(str(tmp_path))
    assert state["chrony_ppm"] == "-12.345" and "ptp" not in state
    sent = msgspec.msgpack.encode(Heartbeat(t_ns=1, clock_state=state))
    assert msgspec.msgpack.decode(sent, type=Heartbeat).clock_state == state


def test_a_tool_that_hangs_is_left_out_and_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_state, "TOOL_S", 0.2)
    tool(tmp_path, "chronyc", "exec sleep 60")
    watch = ClockState(str(tmp_path) + os.pathsep + "/usr/bin" + os.pathsep + "/bin")
    watch.start()
    assert watch.latest().get("chrony") is None
    end_s = time.monotonic() + 20
    while not watch.latest() and time.monotonic() < end_s:
        time.sleep(0.01)
    watch.close()
    assert "kernel" in watch.latest() and "chrony" not in watch.latest()
