# The commands of this project. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

BIN := .venv/bin
HOSTS ?= 2
TAG ?=
ARGS ?=
# In CI a task runs as a job, with a summary and annotations.
RUN = $(if $(CI),$(BIN)/python scripts/job.py,$(BIN)/inv)
# The shell expands the tag, not make, so neither executes its content.
TAGGED = $(if $(value TAG),--tag "$$TAG")
PYTEST = $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder
SOURCES := $(wildcard rolling_upgrade fabfile lab tests benchmarks scripts/job.py tasks.py)
# The main modules of the programs for hosts, which may have Python 3.10; mypy follows their imports.
HOST_PROGRAMS := $(wildcard rolling_upgrade/features/on_host.py rolling_upgrade/engine/sqlite_program.py \
	rolling_upgrade/engine/site/program.py rolling_upgrade/engine/site/scope.py)
SHELL_FILES = $(shell find .ci scripts lab templates -type f \( -name '*.sh' -o -path '.ci/*' \) 2>/dev/null)

.PHONY: help
help: ## list the commands (the default)
	@echo "Usage: make COMMAND"
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "More arguments go into ARGS: make test ARGS='-k lock -x'"

.PHONY: setup
setup: ## install what is missing: Debian packages, and the Python packages of requirements.lock into .venv
	@scripts/setup.sh

.PHONY: demo
demo: setup ## upgrade a real application on two real hosts under load, then survive a broken release
	@$(BIN)/python -m lab.demo $(ARGS)

.PHONY: test
test: setup ## run all tests, including those on lab hosts
	@$(PYTEST) -m 'not extended' $(ARGS)

.PHONY: test-extended
test-extended: setup ## run the slow variants of the tests
	@$(PYTEST) -m extended $(ARGS)

.PHONY: test-here
test-here: setup ## run the tests that need no lab hosts
	@$(BIN)/python -m pytest -n 2 --ignore tests/deploy --ignore tests/lab -m 'not extended' $(ARGS)

.PHONY: check
check: setup ## check formatting, types, import rules, shell scripts and the documentation site, in seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/mypy --python-version 3.10 $(HOST_PROGRAMS)
	cd lab/app && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache --exclude '^$$' .
	$(BIN)/shellcheck $(SHELL_FILES)
	$(BIN)/python -m pytest -q $(wildcard tests/test_layers.py tests/test_generated_scripts.py)
	@# Not --quiet: it hides the warnings that --strict counts.
	$(BIN)/mkdocs build --strict

.PHONY: format
format: setup ## format the sources
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

deploy-%: setup ## upgrade an environment: make deploy-production TAG=v2.0.1
	@$(RUN) deploy --env '$*' $(TAGGED) $(ARGS)

full-%: setup ## build, test, push, deploy, check and monitor: make full-staging TAG=v2.0.1
	@$(RUN) full --env '$*' $(TAGGED) $(ARGS)

rollback-%: setup ## roll an environment back to its last good release
	@$(RUN) rollback --env '$*' $(ARGS)

promote-%: setup ## deploy the images tested in another environment: make promote-production FROM=staging
	@$(RUN) promote --from "$${FROM:-staging}" --to '$*' $(ARGS)

status-%: setup ## show the state of an environment
	@$(RUN) status --env '$*' $(ARGS)

health-%: setup ## check an environment once
	@$(RUN) health --env '$*' --once $(ARGS)

doctor-%: setup ## find problems that would make a deploy fail
	@$(RUN) doctor --env '$*' $(ARGS)

report-%: setup ## write the page of an environment's last run: report.html
	@$(RUN) report --env '$*' --html report.html $(ARGS)

.PHONY: build
build: setup ## build the images of the services: make build TAG=v2.0.1
	@$(RUN) build $(TAGGED) $(ARGS)

.PHONY: suites
suites: setup ## run the application's own suites: make suites ARGS='--suite unit'
	@$(RUN) test $(ARGS)

.PHONY: config-check
config-check: setup ## report every error in the configuration
	@$(RUN) config.check $(ARGS)

.PHONY: lab-up
lab-up: setup ## bring up the lab: make lab-up HOSTS=2
	@$(BIN)/inv lab.up --hosts $(HOSTS) $(ARGS)

.PHONY: lab-down
lab-down: setup ## take the lab down
	@$(BIN)/inv lab.down $(ARGS)

.PHONY: dist
dist: setup ## build the package that pip installs, as dist/*.whl and dist/*.tar.gz, and check it
	@rm -rf dist
	@$(BIN)/python -m hatchling build -d dist
	@scripts/tool.sh 'twine==6.2.0' twine check --strict dist/*

.PHONY: lock
lock: ## regenerate requirements.lock from requirements.in
	@scripts/lock.sh

.PHONY: audit
audit: ## check requirements.lock for known vulnerabilities in the Python Packaging Advisory Database (needs the internet)
	@scripts/tool.sh 'pip-audit==2.10.1' pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

.PHONY: sbom
sbom: ## write sbom.json: every version in requirements.lock with its hashes, as CycloneDX
	@scripts/tool.sh 'cyclonedx-bom==7.5.0' cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-file sbom.json requirements.lock

.PHONY: clean
clean: ## remove .venv and build artifacts; the lab stays (make lab-down removes it)
	rm -rf dist site sbom.json .venv .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
