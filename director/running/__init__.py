"""Run a job under measurement, whatever happens to it or to us."""
