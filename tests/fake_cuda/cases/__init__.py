"""For a process that finds a pretended GPU: `python -m pytest -p tests.fake_cuda.plugin tests/fake_cuda/cases`."""
