"""Rules for published MLPerf power results: each is a function that yields what it finds."""
