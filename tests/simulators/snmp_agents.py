"""Records for snmpsim: an APC rPDU2, a Raritan PX2 and a device with ENTITY-SENSOR, as such agents show themselves."""

from __future__ import annotations

_APC, _RARITAN, _SENSOR = "1.3.6.1.4.1.318.1.1", "1.3.6.1.4.1.13742.6", "1.3.6.1.2.1.99.1.1.1"
INTEGER, TEXT, GAUGE = "2", "4", "66"


def records(*lines: tuple[str, str, object]) -> str:
    """In the order of their objects, as snmpsim wants them."""
    ordered = sorted(lines, key=lambda line: [int(part) for part in line[0].split(".")])
    return "".join(f"{oid}|{kind}|{value}\n" for oid, kind, value in ordered)


def apc(*, device: int = 123, outlets: int = 2) -> str:
    """1.23 kW; outlet n takes 100·n + 1 W and has counted n.5 kWh; the last one cannot be metered."""
    lines: list[tuple[str, str, object]] = [
        (f"{_APC}.12.1.5.0", TEXT, "AP8681"),
        (f"{_APC}.26.4.3.1.5.1", INTEGER, device),
        (f"{_APC}.26.4.3.1.9.1", INTEGER, 45678),
        (f"{_APC}.26.6.3.1.7.1", INTEGER, device),
    ]
    for n in range(1, outlets + 1):
        lines += [
            (f"{_APC}.26.9.4.3.1.7.{n}", INTEGER, 100 * n + 1),
            (f"{_APC}.26.9.4.3.1.11.{n}", INTEGER, 10 * n + 5),
        ]
    lines += [(f"{_APC}.26.9.4.3.1.7.{outlets + 1}", INTEGER, -1)]
    return records(*lines)


def raritan(*, digits: int = 1) -> str:
    """An inlet of 432.1 W (of 4321 with no digits) and 98765 Wh; outlet 1: 40 W; outlet 2 does not answer."""
    inlet, outlet = f"{_RARITAN}.5.2.3.1", f"{_RARITAN}.5.4.3.1"
    lines: list[tuple[str, str, object]] = [(f"{_RARITAN}.3.2.1.1.3.1", TEXT, "PX2-5260R")]
    for values, sensors, index, watts, hours, places, state in (
        (inlet, f"{_RARITAN}.3.3.4.1", "1.1", 4321, 98765, digits, 4),
        (outlet, f"{_RARITAN}.3.5.4.1", "1.1", 40, 1234, 0, 4),
        (outlet, f"{_RARITAN}.3.5.4.1", "1.2", 0, 0, 0, -1),
    ):
        for sensor, value, unit, of_sensor in ((1, 19, 2, 1), (5, watts, 3, places), (8, hours, 5, 0)):
            lines += [
                (f"{values}.3.{index}.{sensor}", INTEGER, state),
                (f"{values}.4.{index}.{sensor}", GAUGE, value),
                (f"{sensors}.6.{index}.{sensor}", INTEGER, unit),
                (f"{sensors}.7.{index}.{sensor}", GAUGE, of_sensor),
            ]
    return records(*lines)


def entity_sensor(*, sensors: int = 1, status: int = 1) -> str:
    """Sensor 100 + n: (1000·n + 5) W in tenths, updated each 2 s at sysUpTime 777; another one tells °C."""
    lines: list[tuple[str, str, object]] = [("1.3.6.1.2.1.1.1.0", TEXT, "A switch"), (f"{_SENSOR}.1.50", INTEGER, 8)]
    for n in range(1, sensors + 1):
        lines += [(f"1.3.6.1.2.1.47.1.1.1.1.7.{100 + n}", TEXT, f"PSU {n} input")]
        lines += [
            (f"{_SENSOR}.{column}.{100 + n}", kind, value)
            for column, kind, value in (
                (1, INTEGER, 6),
                (2, INTEGER, 9),
                (3, INTEGER, 1),
                (4, INTEGER, 10 * (1000 * n + 5)),
                (5, INTEGER, status),
                (7, "67", 777),
                (8, GAUGE, 2000),
            )
        ]
    return records(*lines)


def moving() -> str:
    """An APC whose power snmpsim makes anew at each request: between 1 and 3 kW, a sine of 1 s."""
    return records(
        (f"{_APC}.12.1.5.0", TEXT, "AP8681"),
        (
            f"{_APC}.26.4.3.1.5.1",
            "2:numeric",
            "min=100,max=300,function=sin,scale=100,rate=6.28,offset=100",
        ),
    )


def late(milliseconds: int) -> str:
    """An APC that answers so late."""
    return records(
        (f"{_APC}.12.1.5.0", TEXT, "AP8681"),
        (f"{_APC}.26.4.3.1.5.1", "2:delay", f"value=123,wait={milliseconds},deviation=0"),
    )
