# make demo, make test, make lint, make bench, make gpu, make test-oldest: each sets up what it needs in .venv and skips what is already done.
# Paths are relative, so that a folder with a space in its name works.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
# What make gpu measures (python -m benchmarks.gpu --help), and more options for it, such as OPTIONS="--imagenette DIR".
PARTS := kernels
OPTIONS :=
# Processes that share the files of tests, each of 2 GB; with 0 there is one, as a debugger needs it. Their threads wait
# passively, for those that spin keep the others' from working.
WORKERS := 2
SHARED := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# The oldest torch that fastadv supports, in an environment of its own, on Python 3.12 where there is one.
OLDEST := .venv-oldest
OLDEST_PYTHON := $(if $(shell python3.12 --version 2>/dev/null),python3.12,$(PYTHON))
OLDEST_TESTS := tests/test_symbols.py tests/cuda_host tests/fake_cuda tests/ops
SOURCES := $(shell find csrc -type f) setup.py CMakeLists.txt pyproject.toml

.PHONY: demo test test-oldest lint bench gpu format clean

demo: $(VENV)/built
	$(RUN) -m fastadv.demo

test: $(VENV)/built
	OMP_WAIT_POLICY=passive $(RUN) -m pytest $(SHARED) --durations=30 --durations-min=3

# In a copy of the sources, whose build does not meet that of .venv. Kernels see no header of torch, so that they are
# compiled for one virtual architecture, which takes the least time.
test-oldest: export FASTADV_CUDA_ARCHS := 80-virtual
test-oldest: export OMP_WAIT_POLICY := passive
test-oldest: $(OLDEST)/ready
	rm -rf $(OLDEST)/sources && mkdir $(OLDEST)/sources
	tar --exclude='./.[!.]*' --exclude=./build --exclude=./runs --exclude='*.so' -cf - . | tar -xf - -C $(OLDEST)/sources
	cd $(OLDEST)/sources && ../bin/python -m pip install --quiet --no-build-isolation --constraint ../constraints.txt --config-settings editable_mode=compat --editable '.[test]'
	here=$$PWD && cd $(OLDEST)/sources && FASTADV_OTHER_BUILD="$$here/fastadv" ../bin/python -m pytest $(SHARED) $(OLDEST_TESTS)
	cd $(OLDEST)/sources && FASTADV_TEST_DEVICE=cpu ../bin/python -m pytest $(SHARED) tests/gpu

lint: $(VENV)/built
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	find csrc tests/simt tests/cuda_host -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -exec $(VENV)/bin/clang-format --dry-run -Werror {} +
	$(RUN) -m mypy

bench: $(VENV)/built
	$(RUN) -m pytest benchmarks --report auto

gpu: $(VENV)/built
	$(RUN) -m benchmarks.gpu --parts $(PARTS) $(OPTIONS)

format: $(VENV)/built
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	find csrc tests/simt tests/cuda_host -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -exec $(VENV)/bin/clang-format -i {} +

# The interpreter and the pinned dependencies. The build's own come first: fastadv is built against the torch of .venv.
$(VENV)/ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.x ..."; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { echo "Python's venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
	$(PIP) install --quiet --constraint constraints.txt setuptools wheel cmake ninja pybind11 numpy torch torchvision
	@touch $@

# torch 2.11 takes setuptools before 82, and torchvision of its own time.
$(OLDEST)/ready: constraints.txt pyproject.toml
	@test -x $(OLDEST)/bin/python || $(OLDEST_PYTHON) -m venv $(OLDEST)
	{ grep -v -E '^(torch|torchvision|setuptools)==' constraints.txt; echo 'torch==2.11.*'; } > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(OLDEST)/constraints.txt 'setuptools>=77' wheel cmake ninja pybind11 numpy torch torchvision
	@touch $@

# compat: a path, not an import hook, for which Python started beside the clone would find the clone itself instead.
$(VENV)/built: $(VENV)/ready $(SOURCES)
	$(PIP) install --quiet --no-build-isolation --constraint constraints.txt --config-settings editable_mode=compat --editable '.[bench,lint,dali]'
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info fastadv/_C*.so
