"""What a GPU can show, in parts: ``python -m benchmarks.gpu``."""
