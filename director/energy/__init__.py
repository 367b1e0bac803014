"""From traces and phases to energies with coverage and uncertainty."""
