"""The host code of the CUDA build, run without a GPU.

nvcc and CMake build the package as usual, except for the CUDA runtime. ``recorder/`` replaces it and PyTorch's own: it
responds like a machine with two GPUs, runs no kernel, and logs every call in order. PyTorch's streams, guards,
allocator and graphs are the real ones, and the operators' checks, guards and launches are those that run on a GPU.
``tests/simt`` shows what the kernels compute.
"""
