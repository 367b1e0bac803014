"""Drivers of power analyzers on serial and network lines."""
