"""MLPerf results: their official figures, and what physics says beside them."""
