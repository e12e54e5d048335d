# What there is to run here: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# An environment of everything is the demo's too.
DEMO_READY := $(if $(wildcard $(READY)),$(READY),$(VENV)/.demo)
UV_VERSION := 0.13.9
# The first of these that runs and is 3.11 or newer; name another with `make PYTHON=…`.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python3.14,$(shell \
	$(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1 && echo $(p))))

# What runs leave behind stays in the clone; matplotlib would otherwise keep a list of fonts in the home folder.
export MPLCONFIGDIR := $(CURDIR)/.callphases/matplotlib
# No library and no tool that runs here reports its use to its maker.
export ORT_DISABLE_TELEMETRY := 1
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED := False
# The demo and the tests import Airflow in many processes, so bytecode is kept, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.callphases/bytecode

DEMO = $(BIN)/python -m demo

# Compose as a plugin, or the program before it; workers that `make cluster` starts; options of the images' build.
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
WORKERS ?= 2

# Percent of the core's lines that its own tests must run.
COVERAGE_FLOOR := 95

# What is not the core's, and what runs the whole product. Pytest collects a path of testpaths even if --ignore names it.
OTHER_TESTS := $(filter-out tests/test_boundaries.py tests/callphases/ tests/e2e/,$(wildcard tests/test_*.py tests/*/))
# The newest Airflow's pages are those of tests/browser.
WHOLE_TESTS = $(filter-out tests/airflows/test_pages.py,$(sort $(shell grep -rlF mark.e2e tests --include='test_*.py')))

# `make lowest`: its environment, a Python for which the oldest allowed versions have wheels, and what the tests need.
LOWEST := .callphases/lowest
LOWEST_PYTHON ?= $(firstword $(foreach p,$(BIN)/python python3.11 python3.12,$(shell \
	$(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1 && echo $(p))))
LOWEST_WITHOUT := airflow inspection/test_day_counts.py limits/test_quota.py scoring/test_score.py \
	$(patsubst %,pages/test_%.py,airflow_runs app audio_formats conversion fab plugin threads wav_cache) \
	$(patsubst %,segmentation/test_%.py,answers any_call chunk_segmenter hostile_calls real_gateway talk timeline windows) \
	starting/test_layout.py state/test_ledger_machine.py test_changed_models.py test_day_run.py test_days.py \
	test_nights_first.py test_previous_version.py test_range_run.py test_vendor_layouts.py \
	$(patsubst %,transcription/test_%.py,adoption pacing)
LOWEST_TOOLS := duckdb|flask|flask-cors|hypothesis|jsonschema|matplotlib|moto|py-partiql-parser|pytest|pytest-xdist

# `make test-airflows`: the newest release of each supported minor version, and the day after it was released. Airflow's
# constraints are what its release manager's resolver found that day; CONTRIBUTING.md says more.
AIRFLOWS := 3.1 3.2 3.3
AIRFLOW_3.1 := 3.1.8 2026-03-12
AIRFLOW_3.2 := 3.2.2 2026-05-30
AIRFLOW_3.3 := 3.3.2 2026-09-18
AIRFLOW_EXTRAS := amazon,celery,cncf.kubernetes,openlineage,slack,smtp
AIRFLOW_ENVS := .callphases/airflows
# Of the pages' tests, those that ask Airflow.
PAGES_TESTS := tests/callphases/pages/test_app.py tests/callphases/pages/test_fab.py

# The dependency groups of pyproject.toml that tests, bench and samples need.
GROUPS := demo postgres bench samples engines airflows dev

# What `make ledger` runs: 60 seeds of 350 examples.
SEEDS ?= $(shell seq 1 60)
EXAMPLES ?= 350

.PHONY: help setup demo up down cluster cluster-demo cluster-check cluster-down bench check lowest test test-airflows airflow-lists test-fast ledger e2e settings screenshots samples lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Installs a lock file and both packages, with uv, which comes by the pip of $(PYTHON), or by one of its own (3 s more).
EDITABLE := --no-deps --no-build-isolation --editable . --editable include/speechbox
UV_WITH := install --quiet --disable-pip-version-check uv==$(UV_VERSION)
define environment
	@test -n "$(PYTHON)" || { echo "callphases needs Python 3.11 to 3.14; name one with: make PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "==> Making the environment in $(VENV) from $(1), with $$($(BIN)/python --version); the first time takes a minute"
	@$(BIN)/uv --version 2>/dev/null | grep -q " $(UV_VERSION)" || $(PYTHON) -m pip --python $(BIN)/python $(UV_WITH) 2>/dev/null \
		|| { $(BIN)/python -m ensurepip >/dev/null && $(BIN)/python -m pip $(UV_WITH); }
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes $(1)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python $(EDITABLE)
endef

setup: $(READY)  ## Make the environment (.venv) of everything, from the lock file

$(READY): requirements.lock pyproject.toml include/speechbox/pyproject.toml
	$(call environment,requirements.lock)
	@touch $@

# Nothing in the demo's environment needs what installed it, 60 MB.
$(VENV)/.demo: requirements-demo.lock pyproject.toml include/speechbox/pyproject.toml
	$(call environment,requirements-demo.lock)
	@$(BIN)/uv pip uninstall --quiet --python $(BIN)/python pip setuptools uv
	@touch $@

demo: $(DEMO_READY)  ## Run two days of sample calls through everything, no key and no cloud
	@$(DEMO) run

up: $(DEMO_READY)  ## Start the demo's servers with Airflow's UI and leave them running
	@$(DEMO) up

down:  ## Stop what `make up` started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m demo down; else echo "Nothing is running."; fi

cluster:  ## Airflow with Celery in containers, S3 and speechbox with it (WORKERS=3); needs Docker
	@./deploy/make-env.sh
	@echo "==> Building the images; the first time takes some minutes"
	@$(COMPOSE) build --quiet $(BUILD)
	@echo "==> Starting, with $(WORKERS) workers"
	@$(COMPOSE) up --detach --scale worker=$(WORKERS)
	@COMPOSE="$(COMPOSE)" ./deploy/wait.sh

cluster-demo:  ## Two days of sample calls through the cluster
	@$(COMPOSE) run --rm demo

cluster-check: setup  ## Check the running cluster: health, ports, users, where keys are kept
	@$(BIN)/python -m pytest tests/deploy/check_running.py

cluster-down:  ## Stop the cluster; its data stays (docs/cluster.md: to remove it)
	@$(COMPOSE) down

bench: setup  ## Measure the real stack and its alternatives (40 minutes; ONLY="night-5000 rivals" for a part)
	@PYTHONPATH=include:. $(BIN)/python -m benchmarks $(ONLY)

check: setup  ## Lint, format, types, the boundaries between packages, and the oldest allowed dependencies
	@echo "==> ruff"; $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "==> mypy"; $(BIN)/mypy
	@echo "==> import-linter"; $(BIN)/lint-imports
	@$(MAKE) --no-print-directory lowest

# Leaves out, of the core's tests: those marked slow or threads; what needs Airflow, speechbox or a real gateway; modules
# that use no dependency, and those whose tests use them as others do. cli/test_run.py has the whole days. Property tests run
# 10 examples each instead of 100.
lowest: setup  ## The core's tests on the oldest dependencies that pyproject.toml allows (a minute)
	@echo "==> pytest: the core on its oldest dependencies"
	@test -n "$(LOWEST_PYTHON)" || { echo "Skipped: they have wheels for Python 3.11 and 3.12, and neither is here."; exit 0; }; \
	$(MAKE) --no-print-directory $(LOWEST)/.ready && \
	PYTHONPATH=include $(LOWEST)/bin/python -m pytest tests/callphases --numprocesses 2 \
		-m "not slow and not threads" --hypothesis-profile few --basetemp=.callphases/pytest-lowest -p no:cacheprovider \
		$(addprefix --ignore tests/callphases/,$(LOWEST_WITHOUT))

$(LOWEST)/.ready: requirements-lowest.lock
	@$(BIN)/uv venv --quiet --clear --python $(LOWEST_PYTHON) $(LOWEST)
	@$(BIN)/uv pip sync --quiet --python $(LOWEST)/bin/python --only-binary :all: --require-hashes requirements-lowest.lock
	@touch $@

test: check  ## Everything that CI runs: check, the core's tests with its coverage floor, all other tests
	@echo "==> pytest: the core"
	@$(BIN)/python -m pytest tests/test_boundaries.py tests/callphases --numprocesses auto \
		--cov --cov-report= --cov-fail-under=$(COVERAGE_FLOOR)
	@echo "==> pytest: speechbox, tables in warehouses, Dags"
	@$(BIN)/python -m pytest $(OTHER_TESTS) -m "not e2e" --numprocesses auto --dist loadfile
	@echo "==> pytest: whole nights in processes of their own"
	@$(BIN)/python -m pytest $(WHOLE_TESTS) -m "e2e and not kill"
	@$(MAKE) --no-print-directory test-oldest-airflow
	@echo "==> All is well. Next: make demo, or make up for the UI."

# One cached environment for each, with the hash-pinned list of the minor version. What needs no Airflow is left out.
$(AIRFLOW_ENVS)/%/.ready: tests/airflows/%.lock pyproject.toml $(READY)
	@echo "==> Making the environment of Airflow $*"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	@$(BIN)/uv pip sync --quiet --python $(@D)/bin/python --require-hashes tests/airflows/$*.lock
	@$(BIN)/uv pip install --quiet --python $(@D)/bin/python $(EDITABLE)
	@touch $@

test-airflows: setup  ## The Dags on each supported Airflow, with its real processes (30 minutes; AIRFLOWS=3.2 for one)
	@for one in $(AIRFLOWS); do \
		$(MAKE) --no-print-directory $(AIRFLOW_ENVS)/$$one/.ready || exit 1; \
		echo "==> pytest: Airflow $$one"; \
		$(AIRFLOW_ENVS)/$$one/bin/python -m pytest $(or $(AIRFLOW_TESTS),tests/callphases/airflow $(PAGES_TESTS) tests/dags tests/airflows) \
			--basetemp=.callphases/pytest-airflows -p no:cacheprovider || exit 1; \
	done

# The oldest; the newest is that of the environment for all other tests.
.PHONY: test-oldest-airflow
test-oldest-airflow:
	@$(MAKE) --no-print-directory test-airflows AIRFLOWS=$(firstword $(AIRFLOWS)) \
		AIRFLOW_TESTS="tests/callphases/airflow $(PAGES_TESTS) tests/dags/test_call_phases.py tests/airflows"

test-fast: setup  ## Only the tests that start no server
	@$(BIN)/python -m pytest -m "not integration and not slow and not e2e"

ledger: setup  ## Run the ledger's state machine over many seeds (12 minutes; SEEDS="1 2 3", EXAMPLES=1000)
	@for seed in $(SEEDS); do \
		LEDGER_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/callphases/state/test_ledger_machine.py --hypothesis-seed=$$seed \
			|| { echo "Repeat it with: make ledger SEEDS=$$seed EXAMPLES=$(EXAMPLES)"; exit 1; }; \
	done; echo "==> No second payment with the seeds $(SEEDS), $(EXAMPLES) examples each."

e2e: setup  ## Run whole nights on a cluster whose machines are killed (45 minutes; ONLY=redis for a part)
	@$(BIN)/python -m pytest tests/e2e $(if $(ONLY),-k "$(ONLY)")

settings: setup  ## Write docs/settings.md and its JSON schema from the models of the pipeline file
	@PYTHONPATH=include $(BIN)/python -m tools.settings

screenshots: setup  ## Take the pictures of docs/pages.md in Chromium, of Airflow's UI as `make up` shows it
	@PYTHONPATH=include:. $(BIN)/python -m tools.screenshots

samples: setup  ## Regenerate the sample calls from their scripts
	@$(BIN)/python include/samples/make_samples.py

lock: setup  ## Resolve the dependencies of both distributions (UPGRADE=1 to update locked versions)
	@$(BIN)/uv pip compile pyproject.toml include/speechbox/pyproject.toml --universal --python-version 3.11 \
		--all-extras $(addprefix --group ,$(GROUPS)) --generate-hashes --no-header --no-annotate \
		$(if $(UPGRADE),--upgrade) --quiet --output-file requirements.lock
	@$(BIN)/uv pip compile pyproject.toml include/speechbox/pyproject.toml --universal --python-version 3.11 \
		--extra airflow --extra pictures --group demo --constraint requirements.lock --excludes demo/left-out.txt \
		--generate-hashes --no-header --no-annotate --upgrade --quiet --output-file requirements-demo.lock
	@grep -oE '^($(LOWEST_TOOLS))==[^ ]+' requirements.lock | \
		$(BIN)/uv pip compile pyproject.toml - --extra score --resolution lowest-direct --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --upgrade --quiet --output-file requirements-lowest.lock

airflow-lists: setup  ## Resolve the versions of tests/airflows (CONSTRAINTS=file-or-URL to take Airflow's own)
	@$(foreach one,$(AIRFLOWS),\
		echo 'apache-airflow[$(AIRFLOW_EXTRAS)]==$(word 1,$(AIRFLOW_$(one)))' | $(BIN)/uv pip compile - --universal \
			--python-version 3.11 $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS),--exclude-newer $(word 2,$(AIRFLOW_$(one)))) \
			--no-header --no-annotate --upgrade --quiet --output-file tests/airflows/$(one).txt && \
		$(BIN)/uv pip compile pyproject.toml include/speechbox/pyproject.toml --extra airflow --extra celery \
			--extra kubernetes --group airflows --constraint tests/airflows/$(one).txt --universal --python-version 3.11 \
			--generate-hashes --no-header --no-annotate --upgrade --quiet --output-file tests/airflows/$(one).lock && ) true

clean: down  ## Remove the environment and everything that runs left behind
	@rm -rf $(VENV) .callphases .mypy_cache .ruff_cache .pytest_cache .hypothesis
