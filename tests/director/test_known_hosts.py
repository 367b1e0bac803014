"""What is said of hosts that nobody knows."""

from __future__ import annotations

from director.fleet.known_hosts import not_connected, not_enrolled


def test_a_misspelt_host_is_told_from_others() -> None:
    assert not_enrolled(["a", "b"], {"b", "a"}) == ""
    assert not_enrolled(["node1", "ndoe2"], {"node1", "node2"}) == (
        "ndoe2 is not enrolled (did you mean node2?). Enrolled are node1, node2. To enrol an agent: "
        "power-director keys add NAME KEY"
    )
    assert not_enrolled(["x"], []).startswith("x is not enrolled. Enrolled are none.")


def test_hosts_that_have_not_come_are_told_of_with_those_that_have() -> None:
    assert not_connected(["a", "gpu-node-7"], ["gpu-node-8", "a"]) == [
        "gpu-node-7 is not connected (did you mean gpu-node-8?); connected now: a, gpu-node-8"
    ]
    assert not_connected(["zz"], [f"n{number:02}" for number in range(20)]) == [
        "zz is not connected; connected now: n00, n01, n02, n03, n04, n05, n06, n07 and 12 more"
    ]
