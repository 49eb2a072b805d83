"""Benchmarks: each compares with a baseline in the same run and prints ratios. No test depends on them."""
