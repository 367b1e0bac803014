"""The resources of a made BMC, as JSON by path, and as a folder that sushy-static serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Tree = dict[str, dict[str, Any]]
CHASSIS = "/redfish/v1/Chassis/1"


def link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def collection(path: str, members: list[str]) -> dict[str, Any]:
    return {"@odata.id": path, "Members": [link(member) for member in members], "Members@odata.count": len(members)}


def tree(*, environment: bool = True, sensors: bool = True, power: bool = True) -> Tree:
    """A server of 400 W whose BMC has these ways to tell it."""
    root = "/redfish/v1"
    chassis = {
        "@odata.id": CHASSIS,
        "Id": "1",
        "Name": "Computer System Chassis",
        "ChassisType": "RackMount",
        "Model": "Made 9680",
        "Links": {"ComputerSystems": [link(f"{root}/Systems/1")]},
    }
    made: Tree = {
        root: {
            "@odata.id": f"{root}/",
            "Id": "RootService",
            "RedfishVersion": "1.15.0",
            "Chassis": link(f"{root}/Chassis"),
            "Links": {"Sessions": link(f"{root}/SessionService/Sessions")},
        },
        f"{root}/Chassis": collection(f"{root}/Chassis", [CHASSIS]),
        CHASSIS: chassis,
    }
    sensor = f"{CHASSIS}/Sensors/TotalPower"
    if environment:
        chassis["EnvironmentMetrics"] = link(f"{CHASSIS}/EnvironmentMetrics")
        made[f"{CHASSIS}/EnvironmentMetrics"] = {
            "@odata.id": f"{CHASSIS}/EnvironmentMetrics",
            "PowerWatts": {"Reading": 400.5, "DataSourceUri": sensor},
            "EnergykWh": {"Reading": 1234.567},
        }
    if sensors:
        inlet = f"{CHASSIS}/Sensors/InletTemp"
        chassis["Sensors"] = link(f"{CHASSIS}/Sensors")
        made[f"{CHASSIS}/Sensors"] = collection(f"{CHASSIS}/Sensors", [inlet, sensor])
        made[inlet] = {
            "@odata.id": inlet,
            "Name": "Inlet",
            "ReadingType": "Temperature",
            "ReadingUnits": "Cel",
            "Reading": 21,
        }
        made[sensor] = {
            "@odata.id": sensor,
            "Name": "Total power",
            "ReadingType": "Power",
            "ReadingUnits": "W",
            "Reading": 401.5,
            "ReadingTime": "2026-01-01T00:00:00Z",
            "SensingInterval": "PT0.5S",
            "AveragingInterval": "PT1S",
            "Accuracy": 2.0,
            "PhysicalContext": "Chassis",
            "Status": {"State": "Enabled", "Health": "OK"},
        }
    if power:
        chassis["Power"] = link(f"{CHASSIS}/Power")
        made[f"{CHASSIS}/Power"] = {
            "@odata.id": f"{CHASSIS}/Power",
            "PowerControl": [
                {
                    "MemberId": "0",
                    "Name": "System Power Control",
                    "PowerConsumedWatts": 402,
                    "PhysicalContext": "Chassis",
                },
                {"MemberId": "1", "Name": "CPU Sub-system Power", "PowerConsumedWatts": 150, "PhysicalContext": "CPU"},
                {"MemberId": "2", "Name": "Memory Power", "PowerConsumedWatts": 40, "PhysicalContext": "Memory"},
            ],
        }
    return made


def write_tree(made: Tree, folder: Path) -> Path:
    """Lay it out for `sushy-static -m`; again to change it. Each file is replaced at once, as a reader may come."""
    for path, resource in made.items():
        place = folder / path.removeprefix("/redfish/v1").strip("/")
        place.mkdir(parents=True, exist_ok=True)
        new = place / "index.new"
        new.write_text(json.dumps(resource), encoding="utf-8")
        new.replace(place / "index.json")
    return folder
