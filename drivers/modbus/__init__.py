"""Meters that answer Modbus RTU or TCP, by a map of their registers."""
