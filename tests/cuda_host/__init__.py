"""The host code of the CUDA build, run without a GPU.

The package is built as always, by nvcc and CMake, but for its CUDA runtime: in the place of that, and of PyTorch's own,
stands ``recorder/``, which answers as two GPUs would, runs no kernel, and writes down every call in order. So PyTorch's
streams, guards, allocator and graphs are the real ones, and the operators' checks, guards and launches are those that
run on a GPU. What the kernels compute is shown by ``tests/simt``.
"""
