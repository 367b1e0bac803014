"""The intervals that energies are given for: from marks and logs to one table."""
