# make demo   from nothing to a result table on a cohort the project draws itself
# make test   lint, types and tests; make test-fast: the tests of two minutes
# make audit  known vulnerabilities among the packages of the lock
# Both make .venv from the lock first; PYTHON names another interpreter (3.11 to 3.14).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV := $(VENV)/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

DRAWN := results/demo/drawn/slides.csv
CORES ?= all

.PHONY: env demo paper test test-fast test-slow test-exports lint format bench audit lock clean

env: $(ENV)

$(ENV): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
		|| { echo "$(PYTHON) is not Python 3.11 to 3.14: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' \
		|| { echo "$(PYTHON) has no ensurepip: install your system's python3-venv, or name another PYTHON" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing about 6 GB into $(VENV): PyTorch comes with CUDA"
	$(BIN)/pip install --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(DRAWN): $(wildcard slpd_core/demo/*.py) | $(ENV)
	python -m slpd_core.demo --out $(@D)

demo: $(DRAWN)
	snakemake --cores $(CORES) --configfile cohorts/demo.yaml
	@cat results/demo/report/label/table.md
	@echo "The report: $(CURDIR)/results/demo/report/index.html"

# Tables 1 and 2 of the paper, over both its cohorts, whose files in cohorts/ say what has to be there: what of either is
# missing is said before the first begins. ARGS for a cluster: make paper ARGS="--workflow-profile profiles/slurm"
paper: $(ENV)
	for cohort in tcga_nsclc tcga_brca; do \
		snakemake tables --dry-run --quiet --configfile cohorts/$$cohort.yaml cohorts/paper.yaml || exit 1; \
	done
	for cohort in tcga_nsclc tcga_brca; do \
		snakemake --cores $(CORES) $(ARGS) tables --configfile cohorts/$$cohort.yaml cohorts/paper.yaml || exit 1; \
	done
	@cat results/tcga_brca/tables/*.md

lint: $(ENV)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy

format: $(ENV)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

# A file of tests per process, a process per core, in the order of tests/conftest.py.
test: lint
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

# For the daily round: no whole runs, no benchmarks, no packaging.
test-fast: $(ENV)
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile -m "not slow and not long"

# What takes long and seldom breaks: a cluster, faults in whole runs.
test-slow: $(ENV)
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile -m slow

# Exports as other tools read them, in environments of their own: make test-exports SLPD_READERS=PYTHON[:PYTHON], or
# .ci/readers, which makes these environments first.
test-exports: $(ENV)
	SLPD_READERS=$(SLPD_READERS) python -m pytest -rP -m slow tests/export/test_foreign_readers.py

bench: $(ENV)
	python -m benchmarks

# Known vulnerabilities among the locked packages.
audit:
	$(PYTHON) .ci/audit

# Every version, for every platform and Python; no index is written into it, so it serves behind a mirror too.
lock:
	uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url \
		--no-annotate pyproject.toml -o requirements.lock

# What `make demo` made and the environment; no other results.
clean:
	rm -rf $(VENV) .audit .readers results/demo
