"""MLPerf Inference's power server: the official client measures with it, and gets its official session folder."""
