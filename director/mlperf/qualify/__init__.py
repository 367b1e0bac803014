"""The meter test of MLPerf Training: a meter against a reference, from recorded traces or live."""
