"""PTDaemon, SPEC's program that reads power analyzers, as a device."""
