"""Tests and benchmarks on a GPU, in parts: ``python -m benchmarks.gpu``."""
