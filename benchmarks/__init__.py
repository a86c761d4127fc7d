"""Benchmarks: one file for each question, one harness for all; see README.md."""
