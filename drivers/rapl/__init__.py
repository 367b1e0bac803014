"""CPU energy counters: RAPL through powercap or perf."""
