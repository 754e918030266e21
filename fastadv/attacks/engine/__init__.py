"""Computes attacks' gradients, and makes that fast: folding, compilation, CUDA graphs."""
