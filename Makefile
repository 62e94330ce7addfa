# `make demo` and `make test` are all that a fresh clone needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slurm check setup clean

demo: setup  ## train the quickstart sweep (2-3 minutes on two cores) and say where its figure is
	$(BIN)/orchestrator launch sweeps/quickstart.yaml

test: setup  ## every test but those on SLURM
	$(BIN)/python -m pytest

test-slurm: setup  ## on a real SLURM that it starts: root, and apt-get install slurm-wlm slurmdbd munge mariadb-server
	$(BIN)/python -m pytest -m slurm

check: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: .venv/.done

.venv/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info
