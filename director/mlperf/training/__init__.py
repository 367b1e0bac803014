"""MLPerf Training: official scores of published or own results."""
