# Two commands: `make demo` and `make test`. Everything lives in .venv, built once.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
DATA ?= $(if $(RANKER_DATA),$(RANKER_DATA)/kuairand_pure_0425_0508)

.PHONY: demo test check slow browser ray kuairand data-is-named peers clean

demo: $(VENV)/.installed
	$(BIN)/ranker demo

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/.installed
	$(BIN)/pytest -m slow -n auto --maxprocesses 4 --dist loadfile

browser: $(VENV)/.installed
	$(BIN)/pytest -m browser

ray: $(VENV)/.installed-ray
	$(BIN)/pytest -m ray

# The full 14 days of KuaiRand-Pure: make kuairand DATA=DIR
kuairand: data-is-named $(VENV)/.installed
	$(BIN)/python -m pipelines.kuairand $(DATA)

data-is-named:
	@test -n "$(DATA)" || { \
	  echo "make kuairand DATA=DIR, where DIR holds the four files that data/README.md lists"; \
	  echo "(or set RANKER_DATA to the folder that holds kuairand_pure_0425_0508)."; exit 2; }

# The peers that benchmarks/ compares with, each in an environment of its own (5 GB)
peers: $(VENV)/.installed
	$(BIN)/python benchmarks/peers/make_environment.py all

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "ranker needs Python 3.11 or newer, and '$(PYTHON)' is not on the PATH."; \
	  echo "Install it, or name another: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ranker needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version)."; \
	  echo "Name a newer one: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/.installed-ray: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[ray]'
	touch $@

clean:
	rm -rf runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
