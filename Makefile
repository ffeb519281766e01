# make train      the environment, then a small agent on real Crafter, in minutes
# make test       every test, but for those that run for hours (make test-long)
# make test-fast  the quick ones
# make lint       format, rules and types
# make docs       the documentation as a site, in docs/_build/html
PYTHON ?= python3
# Test processes at a time, of one thread each: most of a test is Python, which has one.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal
TORCH ?= torch==2.13.0

# Without an NVIDIA card, the CPU build of torch: a tenth of the download. With one, the CUDA build.
# On an unreachable index pip goes on with what it finds elsewhere.
ifeq ($(shell command -v nvidia-smi),)
TORCH_FLAGS ?= --extra-index-url https://download.pytorch.org/whl/cpu --retries 0 --timeout 15
endif

.PHONY: train test test-fast test-long lint docs
train: .venv/installed
	.venv/bin/python scripts/train.py experiment=crafter_quick

test: .venv/tested
	$(PYTEST) -m "not long"

test-fast: .venv/tested
	$(PYTEST) -m "not long and not slow"

test-long: .venv/tested
	.venv/bin/python -m pytest -m long --timeout 0

lint: .venv/linted
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

docs: .venv/documented
	OMP_NUM_THREADS=1 .venv/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

.venv/installed: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ": make PYTHON=python3.12, say.")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_FLAGS) "$(TORCH)"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/tested: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_FLAGS) --editable ".[test]"
	@touch $@

.venv/linted: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_FLAGS) --editable ".[lint]"
	@touch $@

.venv/documented: .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_FLAGS) --editable ".[docs]"
	@touch $@
