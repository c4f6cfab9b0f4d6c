"""Benchmarks: `python -m benchmarks` measures, prints tables and writes `results.json`."""
