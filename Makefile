# `make demo` and `make test` each make the virtual environment first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint test-slow clean

.venv/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else 1)' || \
	  { echo "ksim needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module. On Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check -q --no-deps -e .
	@touch $@

demo: .venv/.installed
	@rm -rf demo
	@$(BIN)/ksim run scenarios/night.scenario.toml --seed 7 --record demo --timeline demo/night.html
	@$(BIN)/ksim replay demo/*.ksim

lint: .venv/.installed
	$(BIN)/ruff check ksim tests examples
	$(BIN)/ruff format --check ksim tests examples
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# A run ends with the worker that ended, by the time limit for one, and with the name of its test:
# pytest-xdist 3.8.0 waits for ever after it replaced a worker of `loadgroup` (its issue 1327).
SPREAD := --dist loadgroup --max-worker-restart=0

# Three workers on two cores: many tests wait for timers of real brokers.
test: lint
	$(BIN)/pytest -n 3 $(SPREAD) -m "not slow"

# The nights alone: three brokers and six members need both cores, and a group that starves is no
# finding. Then the rest; both are run, and either one's failure is the whole's.
SLOW := $(BIN)/pytest -m slow -o faulthandler_timeout=3600

test-slow: .venv/.installed
	$(SLOW) tests/chaos; nights=$$?; $(SLOW) -n 2 $(SPREAD) --ignore=tests/chaos && exit $$nights

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache
