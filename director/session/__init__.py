"""A session on disk: manifest, traces, logs and clock pairs; made from spools, recovered after crashes."""
