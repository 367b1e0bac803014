"""The director: runs measurements, and turns readings into energies, metrics and reports."""
