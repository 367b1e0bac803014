"""Hostile input at both ends of the wire, while an honest fleet goes on: no crash, no growth, and nothing is lost."""

from __future__ import annotations

import random
from pathlib import Path

import psutil
import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from agent_site import HOST, Site
from faulty_fleet import FaultyFleet, Lasting
from hostile_peer import agents_messages, attack_agent, attack_director, directors_messages, hostile_frame
from scripted_director import instants, wait_for

from director.fleet.store import FleetStore
from power_agent.wire import frames
from power_agent.wire.frames import BadFrame
from power_agent.wire.messages import Hello

GROWTH_BYTES = 16 << 20  # of caches, and of what is known of peers of the last seconds; not of what was sent
SPOOLS_BYTES = 64 << 20  # of the spools that are open at a time: each name that is made up has one
PARTS = 4


def resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def run_against_director(folder: Path, count: int) -> None:
    """While a session with a job is measured; see FaultyFleet."""
    (folder / "fleet").mkdir()
    fleet = FaultyFleet(folder / "fleet", 1, Lasting())
    pid = fleet.director.pid
    seen: list[int] = []  # before the attack, after each part, and when what waited was dealt with

    def attack(_host: object) -> None:
        seen.append(resident(pid))
        for part in range(PARTS):
            attack_director(fleet.address, count // PARTS, part)
            seen.append(resident(pid))
            wait_for(lambda: resident(pid) < seen[0] + GROWTH_BYTES, f"memory comes back after {seen}")
            seen.append(resident(pid))

    try:
        fleet.faults["hostile frames"] = attack
        fleet.measure(["hostile frames"])
        print(f"{count} frames at a director: {[f'{rss >> 20} MiB' for rss in seen]}; {fleet.counts}")
    finally:
        fleet.close()
    counts = fleet.counts
    assert counts.read == counts.recorded > 0 and counts.wrong_exits == 0


def run_against_agent(folder: Path, count: int) -> None:
    site = Site(folder)
    try:
        director = site.direct()
        agent = site.serve()
        wait_for(lambda: director.of(Hello), "the agent says Hello")
        director.start_session(HOST, "s1")
        wait_for(lambda: director.store.readings_rows > 10, "readings arrive")
        director.close()
        site.directors.clear()
        seen = []
        for part in range(PARTS):
            attack_agent(site.address, count // PARTS, part, "other")
            seen.append(resident(agent.pid))
        director = site.direct()
        director.admit("s1")
        wait_for(lambda: director.of(Hello), "it is back")
        director.stop_session(HOST, "s1")
        wait_for(lambda: not (site.state / "s1").exists(), "all is handed over")
        stored = instants(director.folder / "s1" / "spool" / f"{HOST}.sqlite")["fake.power"]
        assert stored == site.journaled() and len(stored) > 10
        assert agent.poll() is None and "a mistake of this program" not in site.told()
        print(f"{count} frames at an agent: {[f'{rss >> 20} MiB' for rss in seen]}; {len(stored)} readings, all here")
        assert max(seen) - seen[0] < GROWTH_BYTES, seen
    finally:
        site.close()


def run_through_store(folder: Path, count: int) -> None:
    """What a director's limits keep away: every frame is decoded, and what is a message goes to the store."""
    store = FleetStore(lambda text: None)
    store.admit("none", folder)
    chance = random.Random(1)
    sent, back = agents_messages("evil", "none"), directors_messages("none")
    decoders = (frames.from_agent, frames.clock_from_agent, frames.from_director, frames.bulk_from_director)
    bad = taken = 0
    before = 0
    for number in range(count):
        parts = hostile_frame(chance, sent if number % 2 else back)
        for decoder in decoders:
            try:
                decoder.decode_parts(parts)
            except BadFrame:
                bad += 1
        try:
            message = frames.bulk_from_agent.decode_parts(parts)
        except BadFrame:
            bad += 1
        else:
            store.take(b"r", message)
            taken += 1
            if taken % 100 == 0:
                store.commit()
        if number == count // 10:
            before = resident(psutil.Process().pid)
    store.commit()
    store.close()
    print(f"{count} frames through all decoders: {bad} times no message, {taken} to the store")
    assert bad and taken
    assert resident(psutil.Process().pid) - before < SPOOLS_BYTES


def test_hostile_frames_harm_no_director(tmp_path: Path) -> None:
    run_against_director(tmp_path, 5000)


def test_hostile_frames_harm_no_agent(tmp_path: Path) -> None:
    run_against_agent(tmp_path, 5000)


def test_hostile_frames_harm_no_store(tmp_path: Path) -> None:
    run_through_store(tmp_path, 5000)


@pytest.mark.long
def test_a_million_hostile_frames_harm_no_director(tmp_path: Path) -> None:
    run_against_director(tmp_path, 1_000_000)


@pytest.mark.long
def test_a_million_hostile_frames_harm_no_agent(tmp_path: Path) -> None:
    run_against_agent(tmp_path, 1_000_000)


@pytest.mark.long
def test_a_million_hostile_frames_harm_no_store(tmp_path: Path) -> None:
    run_through_store(tmp_path, 1_000_000)
