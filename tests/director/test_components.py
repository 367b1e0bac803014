"""The cut over the power tree never counts a joule twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.answers.summary import EnergyFigure
from director.energy.components import Component, build_tree, children, roots
from director.energy.group_energy import total_figure
from drivers.contract import Channel, Scope


def channel(device: str, scope: Scope, parent: str | None = None, *, estimate: bool = False) -> Channel:
    return Channel(
        name=f"d/{device}/power",
        device=device,
        quantity="power",
        unit="W",
        kind="gauge",
        scope=scope,
        parent=parent,
        estimate=estimate,
    )


def tree(*channels: Channel) -> list[Component]:
    return build_tree([("n", c) for c in channels])


def names(components: list[Component]) -> list[str]:
    return [c.device for c in components]


def test_core_and_psys_are_never_added_to_package() -> None:
    components = tree(
        channel("core-0", "core", "package-0"),
        channel("package-0", "package"),
        channel("dram-0", "dram"),
        channel("psys-0", "psys"),
        channel("gpu0", "gpu"),
    )
    assert names(roots(components)) == ["psys-0", "gpu0"]
    by_name = {c.device: c for c in components}
    assert names(children(by_name["psys-0"], components)) == ["package-0", "dram-0"]
    assert by_name["core-0"].parent is by_name["package-0"]


def test_dram_is_outside_the_package() -> None:
    assert names(roots(tree(channel("package-0", "package"), channel("dram-0", "dram")))) == ["package-0", "dram-0"]


def test_a_wall_meter_holds_everything() -> None:
    components = tree(
        channel("wall", "wall"), channel("node", "node"), channel("gpu0", "gpu"), channel("package-0", "package")
    )
    assert names(roots(components)) == ["wall"]
    assert names(children(components[1], components)) == ["package-0", "gpu0"]


def test_dies_of_a_package_add_up() -> None:
    components = tree(channel("package-0-die-0", "package"), channel("package-0-die-1", "package"))
    assert len(roots(components)) == 2


def test_a_module_holds_only_the_gpu_of_its_number() -> None:
    components = tree(channel("module0", "module"), channel("gpu0", "gpu"), channel("gpu1", "gpu"))
    assert names(roots(components)) == ["module0", "gpu1"]


def test_a_module_seen_by_two_drivers_is_one() -> None:
    components = tree(channel("module0", "module"), channel("module-0", "module"), channel("gpu0", "gpu", "module0"))
    assert names(roots(components)) == ["module0"]


def test_gpu_memory_lies_in_its_gpu() -> None:
    components = tree(*(channel(f"gpu{i}", "gpu") for i in range(2)), channel("gpu1-memory", "gpu_memory", "gpu1"))
    assert names(roots(components)) == ["gpu0", "gpu1"]


def test_rails_of_unknown_place_are_shown_but_not_added() -> None:
    assert names(roots(tree(channel("VDD_IN", "rail"), channel("gpu0", "gpu")))) == ["gpu0"]


def test_hosts_do_not_contain_each_other() -> None:
    components = build_tree([("a", channel("node", "node")), ("b", channel("gpu0", "gpu"))])
    assert len(roots(components)) == 2


def test_several_channels_make_one_component() -> None:
    power = channel("gpu0", "gpu")
    counter = Channel(name="d/gpu0/energy", device="gpu0", quantity="energy", unit="J", kind="counter", scope="gpu")
    assert len(tree(power, counter)) == 1


SCOPES = ["wall", "node", "psys", "module", "package", "core", "uncore", "dram", "gpu", "gpu_memory", "rail"]


@given(st.lists(st.tuples(st.sampled_from(SCOPES), st.integers(0, 3)), max_size=20, unique=True))
def test_no_root_lies_in_another(devices: list[tuple[Scope, int]]) -> None:
    components = tree(*(channel(f"{scope}{i}", scope) for scope, i in devices))
    for component in components:
        seen = component
        for _ in range(len(components)):  # following parents ends
            if seen.parent is None:
                break
            seen = seen.parent
        assert seen.parent is None
        if component.counted:
            assert (component in roots(components)) == (component.parent is None)
    if any(scope == "wall" for scope, _ in devices):
        assert {c.scope for c in roots(components)} <= {"wall"}


def test_devices_of_one_host_share_the_error_of_its_clock() -> None:
    """sync: 3 + 4 on one host, 24 on the other; edge: all apart."""
    parts = []
    for host, device, sync in (("a", "gpu0", 3.0), ("a", "gpu1", 4.0), ("b", "gpu0", 24.0)):
        figure = EnergyFigure(
            name=f"{host}/{device}",
            scope="gpu",
            method="integrated",
            joules=1000.0,
            expanded_joules=0.0,
            mean_watts=1.0,
            peak_watts=None,
            coverage=1.0,
            estimate=False,
            accuracy_known=True,
            terms={"sync": sync, "edge": 1.0},
        )
        parts.append((Component(host, device, "gpu"), figure, "H100"))
    total = total_figure("total", parts)
    assert total is not None and total.terms["sync"] == pytest.approx((7**2 + 24**2) ** 0.5)
    assert total.terms["edge"] == pytest.approx(3**0.5)
    assert total.expanded_joules == pytest.approx(2 * (7**2 + 24**2 + 3) ** 0.5)
