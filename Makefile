PYTHON ?= python3
# Passed on: make lab LAB_ARGS="--no-browser --port 8890", make test PYTEST_ARGS="-k slerp -x".
LAB_ARGS ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-all notebooks docs clean

help:
	@echo "make lab        set up, and open JupyterLab on the first notebook (LAB_ARGS=...)"
	@echo "make test       set up, and run ruff, the quick tests and every notebook (PYTEST_ARGS=...)"
	@echo "make test-all   the same, with the slow tests and those in a browser"
	@echo "make notebooks  run every notebook and keep its outputs in place"
	@echo "make docs       build the site with the API reference and the notebooks into site/"
	@echo "make clean      remove the environment, caches and builds"

setup: $(STAMP)

# Installed again only when one of these files has changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "smoothnb needs Python 3.11 to 3.13, but $(PYTHON) is %d.%d: try make PYTHON=python3.12" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lab,test]"
	@touch $@

lab: $(STAMP)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_ARGS)

# Each worker gets one thread, so that as many workers as cores do not slow each other down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --dist loadscope --durations 20
QUICK := not slow and not browser

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -m "$(QUICK)" $(PYTEST_ARGS)
	$(if $(NOTEBOOKS),$(PYTEST) --nbval-lax --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg \
		--nbval-cell-timeout 600 $(NOTEBOOKS))

test-all: QUICK := slow or not slow
test-all: test

# Bars are off, so that none is kept in the outputs; GitHub cannot show a notebook that holds the state of widgets.
notebooks: $(STAMP)
	TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.store_widget_state=False --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.timeout=1800 $(NOTEBOOKS)

# The site's own tools are installed on its first build; the variable silences an advertisement of the theme.
$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
