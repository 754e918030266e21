# make demo, check, test, lint, docs, bench, gpu, test-oldest, sdist, wheels: each sets up what it needs in .venv and
# skips what is already done.
# Paths are relative, so that a folder with a space in its name works.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
# What make gpu runs (python -m benchmarks.gpu --help), and more options for it, such as OPTIONS="--imagenette DIR".
PARTS := first
OPTIONS :=
# Number of test processes, of 2 GB each; 0 runs the tests in one process, for a debugger. OMP_WAIT_POLICY=passive below
# keeps waiting threads of one process from spinning on the cores that another needs.
WORKERS := 2
SHARED := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# The oldest torch that fastadv supports, in an environment of its own, on Python 3.12 where there is one.
OLDEST := .venv-oldest
OLDEST_PYTHON := $(if $(shell python3.12 --version 2>/dev/null),python3.12,$(PYTHON))
OLDEST_TESTS := tests/test_symbols.py tests/cuda_host tests/fake_cuda tests/ops
SOURCES := $(shell find csrc -type f) setup.py CMakeLists.txt pyproject.toml

# The documentation has an environment of its own, which also sees .venv: torchattacks needs an older requests than
# Sphinx. pip prints a line about that conflict.
DOCS := $(VENV)/docs

.PHONY: demo check test test-oldest lint docs bench gpu format sdist wheels clean

demo: $(VENV)/built
	$(RUN) -m fastadv.cli.demo

# Python keeps what it compiled, even where the environment says otherwise: every worker, and every process that a test
# starts, reads the same files.
check test: export PYTHONDONTWRITEBYTECODE :=

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

# For the edit loop: the quick tests that find most mistakes, in about a minute after lint.
CHECKED := tests/attacks/test_agreement.py tests/attacks/test_by_hand.py tests/attacks/test_isolation.py \
	tests/attacks/test_refusals.py tests/attacks/test_registry.py tests/data/test_batches.py tests/docs/test_api_pages.py \
	tests/evaluate/test_accuracy.py tests/evaluate/test_intervals.py tests/evaluate/test_tables.py \
	tests/ops/test_against_the_reference.py tests/ops/test_arguments.py tests/ops/test_from_pixels.py \
	tests/ops/test_logits.py tests/ops/test_random.py tests/ops/test_steps.py tests/study/test_verdicts.py \
	tests/test_pixel_range.py tests/test_pixels.py tests/test_wording.py tests/train/test_config.py \
	tests/train/test_fast.py tests/train/test_task.py

check: lint
	OMP_WAIT_POLICY=passive $(RUN) -m pytest -q $(SHARED) $(CHECKED)

lint: $(VENV)/built
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	find csrc tests -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -exec $(VENV)/bin/clang-format --dry-run -Werror {} +
	$(RUN) -m mypy

# Any warning fails, such as a broken link or a page that is missing from the navigation.
docs: $(DOCS)/ready
	OMP_WAIT_POLICY=passive $(DOCS)/bin/python -m sphinx -q -n -W --keep-going -j auto -c docs . build/docs
	@echo "The documentation is in build/docs/index.html"

bench: $(VENV)/built
	$(RUN) -m pytest benchmarks --report auto

# Where there is no .venv and PYTHON has torch, that is used and nothing is installed: a machine with a GPU may have no
# network. The extension that lies in fastadv/ is used as it is there, and built where there is none.
ifneq ($(filter gpu,$(MAKECMDGOALS)),)
TORCH := $(if $(wildcard $(VENV)),,$(shell $(PYTHON) -c 'from importlib.util import find_spec; print(*["torch"] * bool(find_spec("torch")))'))
endif

gpu: $(if $(TORCH),,$(VENV)/built)
	$(if $(TORCH),$(PYTHON),$(RUN)) -m benchmarks.gpu --parts $(PARTS) $(OPTIONS)

format: $(VENV)/built
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	find csrc tests -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -exec $(VENV)/bin/clang-format -i {} +

sdist: $(VENV)/built
	$(PIP) install --quiet --constraint constraints.txt build
	$(RUN) -m build --sdist --no-isolation

wheels: $(VENV)/built
	$(RUN) .ci/wheels.py

# The interpreter, and what the build needs: fastadv is built against the torch in .venv.
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

$(DOCS)/ready: $(VENV)/built
	$(RUN) -m venv $(DOCS)
	$(DOCS)/bin/python docs/_sphinx/share_packages.py "$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(DOCS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt 'fastadv[docs]'
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info fastadv/_C*.so
