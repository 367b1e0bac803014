"""What a reader must know before believing a session's figures, in plain words, each with what to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from director.answers.summary import EnergyFigure, PhaseGroup
from director.energy.component_energy import ComponentEnergy
from director.energy.components import Component
from director.session.fleet_record import fleet_notices
from director.session.manifest import Manifest

FULL_COVERAGE = 0.99
MOST_MISSED = 0.01
DISAGREEMENT = 0.05
FEWEST_TO_TELL = 10  # phases; of fewer, one may happen to fall between two readings


def session_warnings(
    manifest: Manifest,
    tree: Sequence[Component],
    phases: Sequence[PhaseGroup],
    run: PhaseGroup,
    problems: Sequence[str],
    told_hosts: Collection[str] = (),
) -> list[str]:
    """Warnings of a session, the gravest first. `run` is the phase that the main figures stand for.

    `problems` holds what is known to be wrong with energies and phases, and why nothing is known of `told_hosts`.
    """
    warnings: list[str] = [*manifest.missing]
    if manifest.fleet is not None:
        warnings += fleet_notices(manifest.fleet, told_hosts)
    states = [(host.name, state) for host in manifest.hosts for state in host.drivers]
    if not tree:
        warnings.append("no power or energy was measured: `power-agent devices` says what each driver needs")
        warnings += [f"{host}/{state.driver}: {state.reason}; {state.fix}" for host, state in states if state.reason]
    for component in tree:
        if component.estimate:
            warnings.append(
                f"{component.name} is an ESTIMATE from utilisation, not a measurement: nothing here measures it; "
                f"`power-agent devices` says what real readings need"
            )
    for figure in run.components:
        warnings += _figure_warnings(figure, run)
    warnings += problems
    several = len(manifest.hosts) > 1
    warnings += [
        text for phase in phases for text in _resolution_warnings(phase, phase.lane_count if several else phase.count)
    ]
    for host_name, state in states:
        for reason, _ in state.notes:
            warnings.append(f"{host_name}/{state.driver}: {reason} (`power-agent devices` says what to do)")
    warnings += _sampling_warnings(manifest)
    for host in manifest.hosts:
        warnings += [
            f"{host.name}/{event.source}: {event.text}" for event in host.events if event.level in ("warning", "error")
        ]
    return list(dict.fromkeys(warnings))


def energy_warnings(energy: ComponentEnergy) -> list[str]:
    """What is doubtful about all energies of a component."""
    unstated = dict.fromkeys(m.channel.name for m in energy.methods if m.channel.accuracy is None)
    return [
        *energy.warnings,
        *(f"{channel}: nobody states its accuracy, so its U leaves the device's own error out" for channel in unstated),
    ]


def _resolution_warnings(phase: PhaseGroup, count: int) -> list[str]:
    """Where phases are shorter than readings are apart, those that take turns cannot be told from each other."""
    if count < FEWEST_TO_TELL:
        return []
    coarse = [figure for figure in phase.components if figure.joules is not None and figure.readings < count]
    if not coarse:
        return []
    names = ", ".join(f.name for f in coarse[:3]) + (f" and {len(coarse) - 3} more" if len(coarse) > 3 else "")
    return [
        f"phase {phase.name}: {count} phases, but only {coarse[0].readings} readings of {names}: each is given "
        "the mean power around it, and what differs within a reading is not seen; a faster --rate may tell more"
    ]


def _figure_warnings(figure: EnergyFigure, run: PhaseGroup) -> list[str]:
    warnings: list[str] = []
    if figure.joules is None:
        warnings.append(
            f"{figure.name}: no energy for phase {run.name}: only {figure.coverage:.0%} of it was measured "
            f"({figure.readings} readings, {figure.missing} missing)"
        )
    elif figure.coverage < FULL_COVERAGE:
        warnings.append(
            f"{figure.name}: {figure.coverage:.1%} of phase {run.name} was measured; the rest is interpolated and "
            f"its U says how wrong that may be"
        )
    for other in figure.alternatives:
        if other.difference is not None and abs(other.difference) > DISAGREEMENT and not other.not_used_because:
            if figure.expanded_joules is not None and other.expanded_joules is not None and figure.joules is not None:
                allowed = (figure.expanded_joules**2 + other.expanded_joules**2) ** 0.5
                if abs(other.difference * figure.joules) <= allowed:
                    continue
            warnings.append(
                f"{figure.name}: {other.channel} ({other.method}) differs by {other.difference:+.1%} from the figure "
                f"given, more than both their U allow"
            )
    return warnings


def _sampling_warnings(manifest: Manifest) -> list[str]:
    warnings: list[str] = []
    for host in manifest.hosts:
        streams = {f.stream.id: f.stream for f in host.streams}
        for tick in host.ticks:
            stream = streams[tick.stream]
            name = f"{host.name}/{stream.driver}.{stream.group}"
            stamped = all(channel.stamped for channel in stream.channels)  # what one read misses, the next brings
            if tick.due and tick.missed > MOST_MISSED * tick.due and not stamped:
                warnings.append(
                    f"{name}: {tick.missed} of {tick.due} readings were missed; the machine was busy or the device "
                    f"slow; a lower --rate would tell which"
                )
            if tick.dropped_rows:
                warnings.append(f"{name}: {tick.dropped_rows} rows found no place on disk and are lost")
        for file in host.streams:
            if file.damaged_batches:
                warnings.append(f"{file.file}: {file.damaged_batches} batches of the spool were damaged and are lost")
    return warnings
