"""A GPU that is not there: tensors that say they are on ``cuda:0`` and are computed on the CPU.

``tensor.py`` has the tensors and what they do to operators, ``runtime.py`` what happens between host and device (waits,
copies, launches, streams, graphs), ``pretend.py`` the block within which PyTorch believes in it all. What is shown is
everything that Python and PyTorch's dispatcher decide: which device a tensor is on, what is launched, copied and
waited for, what a graph records and what it cannot. The CUDA build's kernels and its host code are not run.
"""
