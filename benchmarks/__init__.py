"""Benchmarks: each prints one JSON line with what it measured and on what."""
