"""From energies to metrics, summary, table and warnings."""
