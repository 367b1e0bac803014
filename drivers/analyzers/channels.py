"""The channels of one analyzer, and where in a reading their values stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from msgspec.structs import replace

from drivers.analyzer_uncertainty import energy_limits, power_limits
from drivers.analyzers.description import Item, ItemQuantity
from drivers.analyzers.meter import Meter
from drivers.analyzers.replies import Value
from drivers.analyzers.settings import MeterSettings
from drivers.contract import Accuracy, Channel, Quantity

MICRO = 10**6  # raw values of the integrator are whole µWh
JOULES_PER_WH = 3600.0
ENERGY_STEP_WH = Decimal("0.01")  # what its last digit may be worth: 36 J
OVERLOAD = 2.0  # of the power range: more than any meter shows
_PLAIN: dict[ItemQuantity, tuple[str, Quantity, str]] = {
    "watts": ("power", "power", "W"),
    "volts": ("voltage", "voltage", "V"),
    "amperes": ("current", "current", "A"),
    "power_factor": ("power_factor", "power_factor", ""),
}


class MeterChannels:
    """In the order of a row: what was read, the sum, the uncertainty, the integrator.

    The meter's own Σ is one of what was read: it counts in no total, where the sum stands.
    """

    def __init__(self, name: str, device: str, meter: Meter, settings: MeterSettings) -> None:
        """`name` is the driver's, with its instance; `device` is what the meter stands before."""
        self._name, self._device = name, device
        self._meter, self._settings = meter, settings
        description = meter.description
        self._items = description.items
        self.places = [place for place, item in enumerate(self._items) if item.quantity in _PLAIN]
        watts = [place for place, item in enumerate(self._items) if item.quantity == "watts"]
        self.power_places = [place for place in watts if self._items[place].element or not description.sums]
        self.energy_places = [
            place for place, item in enumerate(self._items) if item.quantity == "watt_hours" and settings.integrate
        ]
        self.has_sum = description.sums and len(self.power_places) > 1
        elements = len(self.power_places)
        self.has_uncertainty = description.specification is not None and len(self._triples()) == elements
        power_range = meter.range_watts if meter.range_watts is not None else meter.largest_watts
        self.most_watts = OVERLOAD * power_range if power_range is not None else None
        self.least_factor_watts = 0.01 * power_range if power_range is not None else None
        channels = [self._plain(self._items[place]) for place in self.places]
        if self.has_sum:
            channels.append(self._power("power", device, None, elements))
        if self.has_uncertainty:
            channels.append(self._uncertainty())
        channels += [self._energy(self._items[place]) for place in self.energy_places]
        self.all = tuple(channels)

    def power_triples(self, values: Sequence[Value]) -> Iterator[tuple[Value, list[Value], Value]]:
        """Of each element that tells all: power, the factors of the apparent power, power factor."""
        for watts, apparent, factor in self._triples():
            yield values[watts], [values[place] for place in apparent], values[factor]

    def _triples(self) -> list[tuple[int, list[int], int]]:
        found = []
        for place in self.power_places:
            of: dict[ItemQuantity, int] = {
                item.quantity: at for at, item in enumerate(self._items) if item.element == self._items[place].element
            }
            apparent = (
                [of["volt_amperes"]] if "volt_amperes" in of else [of[q] for q in ("volts", "amperes") if q in of]
            )
            if "power_factor" in of and (len(apparent) == 2 or "volt_amperes" in of):
                found.append((place, apparent, of["power_factor"]))
        return found

    def _plain(self, item: Item) -> Channel:
        word, quantity, unit = _PLAIN[item.quantity]
        device = self._device_of(item)
        if quantity == "power" and item.element == 0 and self.has_sum:
            return replace(
                self._channel(
                    "sigma_power", device, "power", "W", "the meter's own Σ, by the wiring that it is set to"
                ),
                accuracy=self._power_accuracy(len(self.power_places)),
            )
        if quantity == "power":
            return self._power(word, device, self._device if item.element and self.has_sum else None, 1)
        return self._channel(word, device, quantity, unit)

    def _device_of(self, item: Item) -> str:
        return f"{self._device}-{item.element}" if item.element else self._device

    def _channel(self, word: str, device: str, quantity: Quantity, unit: str, description: str = "") -> Channel:
        meter = self._meter
        return Channel(
            name=f"{self._name}/{device}/{word}",
            device=device,
            quantity=quantity,
            unit=unit,
            kind="gauge",
            model=meter.description.title,
            update_period_s=meter.period_s,
            window_s=meter.description.window_s if meter.description.window_s is not None else meter.period_s,
            stamped=self._is_stamped(),
            description=description,
        )

    def _is_stamped(self) -> bool:
        description = self._meter.description
        fresh = description.freshness
        return description.stream is not None or (fresh is not None and bool(fresh.ask_updated))

    def _power(self, word: str, device: str, parent: str | None, elements: int) -> Channel:
        told = "; ".join([self._meter.dialog.identity, *self._meter.told])
        return replace(
            self._channel(word, device, "power", "W", told),
            scope="rail" if parent is not None else self._settings.scope,
            parent=parent,
            accuracy=self._power_accuracy(elements),
        )

    def _power_accuracy(self, elements: int) -> Accuracy | None:
        specification = self._meter.description.specification
        watts = self._meter.range_watts if self._meter.range_watts is not None else self._meter.largest_watts
        if specification is None or watts is None:
            return self._settings.accuracy
        return power_limits(specification, elements * watts, self._settings.least_power_factor)

    def _uncertainty(self) -> Channel:
        text = "by the meter's specification, as PTDaemon reckons it; MLPerf accepts up to 1 %"
        return self._channel("uncertainty", self._device, "uncertainty", "%", text)

    def _energy(self, item: Item) -> Channel:
        power = self._power_accuracy(1)
        accuracy = energy_limits(power, float(ENERGY_STEP_WH) * JOULES_PER_WH) if power is not None else None
        device = self._device_of(item)
        return replace(
            self._channel("energy", device, "energy", "J", "the meter's own integrator"),
            kind="counter",
            scope="rail" if item.element and self.has_sum else self._settings.scope,
            parent=self._device if item.element and self.has_sum else None,
            scale=JOULES_PER_WH / MICRO,
            accuracy=accuracy,
        )
