"""MLPerf Inference power sessions: their scores, and whether they pass the checks."""
