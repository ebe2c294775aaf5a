# What can be made here: `make help`. Every target makes the virtual environment itself and installs what it needs into
# it, once; a second run starts at once. Another Python: `make test PYTHON=python3.13`. Several side by side: give each
# a VENV of its own.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN = $(VENV)/bin
# Which Python is this? The same answer inside its virtual environments, so that an active one may run make, too.
IDENTITY = import sys; print("Python %d.%d.%d in" % sys.version_info[:3], sys.base_prefix)
MODERN = import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # one pip at a time in an environment
.PHONY: FORCE help demo crawler tenants cluster test suites foreign aiofiles faults hops coverage lint format types wheel bench situations clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'Options: PYTHON=python3.13  VENV=.venv-3.13  ARGS="what the program of the target takes"'

demo: $(VENV)/.has-demo ## show what threadlets does, on this machine
	@$(BIN)/python examples/demo.py $(ARGS)

crawler: $(VENV)/.has-uvloop ## crawl a site politely, with keys to steer it
	@$(BIN)/python examples/crawler.py $(ARGS)

tenants: $(VENV)/.has-uvloop ## show fair share: the same work with and without it
	@$(BIN)/python examples/tenants.py $(ARGS)

cluster: $(VENV)/.has-dask ## let a pool rule over a Dask cluster of processes on this machine
	@$(BIN)/python examples/cluster.py $(ARGS)

test: $(VENV)/.has-test ## run the tests
	@$(BIN)/python -m pytest $(ARGS)

suites: $(VENV)/.has-suites ## run CPython's tests of asyncio and of executors, and uvloop's own tests, on what is ours
	@$(BIN)/python tests/cpython_suite.py $(ARGS)
	@$(BIN)/python tests/uvloop_suite.py $(ARGS)
	@$(BIN)/python tests/executors_suite.py --timeout 20

foreign: $(VENV)/.has-foreign ## run the tests of Starlette, FastAPI, anyio, aiohttp and asgiref with the adapters installed
	@$(BIN)/python tests/foreign_suites.py $(ARGS)

aiofiles: $(VENV)/.has-test ## run aiofiles' own tests on the adapter, installed and as a drop-in
	@$(BIN)/python tests/aiofiles_suite.py $(ARGS)

faults: $(VENV)/.has-test ## cancel, fail and time out 200,000 threadlets at random, and look what is left: --count, --loop, --seed
	@$(BIN)/python -m tests.stress.faults $(ARGS)

hops: $(VENV)/.has-test ## let coroutines hop 100,000 times among threads and loops, on each kind of loop: --count, --loop, --seed
	@$(BIN)/python -m tests.stress.migrations $(ARGS)

coverage: $(VENV)/.has-coverage ## run the tests and list the lines and branches they missed
	@$(BIN)/python -m pytest --cov --cov-report=term-missing $(ARGS)

lint: $(VENV)/.has-lint ## check style and formatting
	@$(BIN)/ruff check $(ARGS)
	@$(BIN)/ruff format --check --diff

format: $(VENV)/.has-lint ## repair style and formatting, where that is safe
	@$(BIN)/ruff check --fix $(ARGS)
	@$(BIN)/ruff format

types: $(VENV)/.has-types ## check the types: mypy on all of it, pyright on what users see
	@$(BIN)/mypy $(ARGS)
	@$(BIN)/pyright --pythonpath $(BIN)/python

wheel: $(VENV)/.has-wheel ## build the archives, install each in an empty environment, and look at the result
	@$(BIN)/python tests/wheel_check.py $(ARGS)

bench: $(VENV)/.has-bench ## measure threadlets beside its alternatives
	@$(BIN)/python -m benchmarks $(ARGS)

situations: $(VENV)/.has-bench ## show what six libraries do in twelve cancellations
	@$(BIN)/python -m benchmarks.situations $(ARGS)

clean: ## remove what make has made, environments too
	rm -rf $(VENV) .venv-3.* .nox dist demo.svg tenants.svg .coverage .coverage.* htmlcov
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find adapters benchmarks examples tests threadlets -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# One stamp per extra: newer than pyproject.toml and the environment means installed. -qq: errors only.
$(VENV)/.has-%: pyproject.toml $(VENV)/.python
	@echo "Installing what 'make $*' needs into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Looked at in every run, written only if $(VENV) is new or belongs to another Python.
$(VENV)/.python: FORCE
	@command -v '$(PYTHON)' >/dev/null || { \
	    echo "There is no '$(PYTHON)' here: make ... PYTHON=/path/to/python3 names another." >&2; exit 1; }
	@'$(PYTHON)' -c '$(MODERN)' || { \
	    echo "threadlets needs Python 3.11 or later, and '$(PYTHON)' is older (or does not run):" \
	        "make ... PYTHON=python3.12 names another." >&2; exit 1; }
	@want=$$('$(PYTHON)' -c '$(IDENTITY)') || exit 1; \
	if [ -e '$(VENV)' ] && [ ! -e '$(VENV)/pyvenv.cfg' ]; then \
	    echo "'$(VENV)' is no virtual environment: move it away, or name another one with VENV=..." >&2; exit 1; fi; \
	have=$$('$(BIN)/python' -c '$(IDENTITY)' 2>/dev/null); \
	if [ "$$want" = "$$have" ] && [ -e '$@' ]; then exit 0; fi; \
	'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments, a part of it is not installed." \
	        "On Debian and Ubuntu: apt-get install python3-venv (as root); then run make again." >&2; exit 1; }; \
	if [ "$$want" != "$$have" ]; then \
	    echo "Making $(VENV) with $$want ..."; \
	    rm -rf '$(VENV)' && '$(PYTHON)' -m venv '$(VENV)' || exit 1; fi; \
	echo "$$want" >'$@'
