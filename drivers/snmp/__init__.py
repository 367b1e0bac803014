"""Power distribution units that are read through SNMP."""
