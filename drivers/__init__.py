"""Device drivers: what a power, energy or thermal sensor reads, right now, honestly.

`drivers.contract` defines what a driver is, `drivers.discovery` finds those that work on this machine.
"""
