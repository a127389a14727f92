# Read by GNU make 3.81 too, which is what macOS has.
# `make help` prints each target with the text behind its `##`, under the headings behind `##@`.
.DEFAULT_GOAL := help
.PHONY: help run restore import migrate health up down images deploy eventing backup recover status logs psql urls e2e install check format describe test coverage torture bench audit requirements upgrade clean

# What a setting on the command line says is what it means: a dollar sign of a password, or of a file, is one.
$(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),\
	$(eval override $(name) := $$(value $(name)))$(eval export $(name))))

# Set for another project, they lead packages elsewhere, or have pip take what is there for installed.
unexport PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_CONSTRAINT

PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3.14 python3.15 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# Whether there are packages for it. A system of 32 bits may be on a processor of 64.
FITS = import platform, sys; name, version = platform.libc_ver(); \
	sys.exit(sys.maxsize < 2**32 or platform.machine() not in ("x86_64", "aarch64", "arm64") or sys.platform == "linux" \
	and (name != "glibc" or [int(part) for part in version.split(".")] < [2, 28]))
# The first part goes on where a start was cut short: .venv is there before its pip is.
INSTALL = .venv/bin/python -m ensurepip --default-pip >/dev/null && .venv/bin/python -m pip install --quiet \
	--no-user --disable-pip-version-check --require-hashes --only-binary :all:
COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make requirements"
# What tests run on Node.js.
NODE = tests/timescale/server tests/versions/server tests/clients/node tests/tools

help:
	@awk -F ':.*## ' '/^##@/ { print substr($$0, 5) } /^[a-z0-9]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

##@ Use
run: .venv/run ## run everything on this machine; settings: PORT, DATA_DIR, BACKUP_DIR, DATABASE_URL, SIMULATE
	@PYTHONPATH=functions:. exec .venv/bin/python -m local

restore: .venv/run ## bring back what BACKUP_DIR has, to an empty DATA_DIR; settings: UNTIL (an instant; all of it)
	@PYTHONPATH=functions:. .venv/bin/python -m local.restore

import: .venv/run ## store a file of readings, CSV or NDJSON: FILE; settings: URL, TOKEN, BUILDING, ROOM, TIME, TEMPERATURE
	@PYTHONPATH=functions:. exec .venv/bin/python -m local.importing

migrate: .venv/run ## bring the database at DATABASE_URL to the newest schema
	@PYTHONPATH=functions:. .venv/bin/python -m migrations

health: .venv/run ## what is wrong with the database at DATABASE_URL, in words
	@PYTHONPATH=functions:. .venv/bin/python -m migrations.health --words

##@ Kubernetes
up: ## a kind cluster with all of it running inside; needs docker, kind and kubectl
	@kind/up.sh && kind/images.sh && kind/deploy.sh && kind/look.sh urls

down: ## remove that cluster with its data, registry and images
	@kind/down.sh

images: ## build the images and push them; settings: REGISTRY
	@kind/images.sh

deploy: ## bring the cluster to these images and the manifests; settings: CONTEXT, OVERLAY
	@kind/deploy.sh

eventing: ## add Knative Eventing, and let the readings go through its Broker
	@kind/eventing.sh && OVERLAY=eventing kind/deploy.sh

backup: ## keep backups of the cluster's database from now on, on a volume of their own
	@kind/backup.sh

recover: ## replace the cluster's database with its backup; settings: REPLACE=true, UNTIL (an instant; all of it)
	@kind/recover.sh

status: ## what runs on the cluster, and what is wrong
	@kind/look.sh status

logs: ## follow the logs of the functions, or of one: FUNCTION=ingest
	@kind/look.sh logs

psql: ## a prompt of the database as the role reader, or another: ROLE=owner
	@kind/look.sh psql

urls: ## the addresses
	@kind/look.sh urls

e2e: .venv/develop ## test what the current kubectl context has
	.venv/bin/python -m pytest --verbose -r s tests/cluster

##@ Develop
install: .venv/develop $(NODE:=/node_modules) ## install what the targets below need (they do so by themselves)

check: .venv/develop ## look for mistakes without running anything: lint, format, types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: .venv/develop ## format the code and mend what can be mended without a thought
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

describe: .venv/develop ## write the API descriptions again, after a change of openapi/ or of a rule
	@PYTHONPATH=functions:. .venv/bin/python -m openapi

test: install ## run all tests; those of TimescaleDB need Node.js, or a server at TIMESCALE_URL
	.venv/bin/python -m pytest --numprocesses auto --dist loadgroup --ignore tests/cluster

COVERED = tests/unit tests/database tests/local tests/timescale tests/faults

coverage: install ## say which lines and branches of what runs at a user's no test reaches (20 minutes)
	.venv/bin/coverage erase
	.venv/bin/coverage run -m pytest --numprocesses auto --dist loadgroup $(COVERED)
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report
	.venv/bin/coverage report --include 'functions/*' --precision 1 --fail-under 99.9

torture: export TORTURE = 1
torture: install ## what takes long: faults and overload that last, ten times as many random inputs (an hour); settings: SEED, RUNS
	.venv/bin/python -m pytest tests/faults tests/local tests/unit/test_writer.py tests/database/test_bad_input.py \
		tests/database/test_description.py tests/database/test_history.py tests/database/test_summaries.py \
		tests/database/test_excursions.py tests/database/test_year.py tests/timescale/test_watch.py \
		tests/timescale/test_jobs.py tests/timescale/test_history.py tests/clients tests/browser/test_lighthouse.py --timeout 1800

bench: install ## measure it; settings: FIGURES (all), LONG=1, RESULTS (build/bench)
	@PYTHONPATH=functions:. .venv/bin/python -m bench $(FIGURES) $(if $(LONG),--long)

audit: .venv/develop ## look whether a vulnerability of a package is known
	@# All packages are in this list.
	.venv/bin/uv tool run pip-audit@2.10.1 --strict --require-hashes --disable-pip -r requirements-dev.txt

requirements: .venv/develop ## pin what the requirements.in files name, keeping the versions pinned so far
	$(COMPILE) requirements-dev.in --output-file requirements-dev.txt
	@# Everything else is a part of that: the same versions everywhere.
	for folder in functions/ingest functions/average functions/simulate functions/watch migrations local; do \
		$(COMPILE) --constraint requirements-dev.txt $$folder/requirements.in --output-file $$folder/requirements.txt \
			|| exit; done
	$(COMPILE) tests/clients/python/requirements.in --output-file tests/clients/python/requirements.txt

upgrade: COMPILE += --upgrade
upgrade: requirements ## the same with the newest versions

clean: ## remove what was installed and cached; data/ stays
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache $(NODE:=/node_modules)
	find bench functions knative local migrations openapi tests -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed and was not found. Name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	elif ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "Python 3.11 or newer is needed; $$python is not. Name another: make PYTHON=/path/to/python3" >&2; exit 1; \
	elif ! "$$python" -c '$(FITS)'; then \
		echo "There are packages for x86-64 and ARM64 with 64 bits, on macOS, and on Linux with glibc 2.28 or newer;" \
			"none for the system that $$python is of" >&2; exit 1; \
	elif ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	elif ! [ -w . ]; then \
		echo "This folder cannot be written to, and .venv with the packages is made in it. Use a copy of it" >&2; exit 1; \
	fi; \
	"$$python" -m venv --clear --without-pip .venv || { rm -rf .venv; exit 1; }

# Stamps: newer than the list that was installed last.
.venv/run: local/requirements.txt .venv/bin/python
	@echo "Installing the packages of $< into .venv"
	@$(INSTALL) -r $<
	@touch $@

.venv/develop: requirements-dev.txt .venv/bin/python
	@echo "Installing the packages of $< into .venv"
	@$(INSTALL) -r $<
	@touch .venv/run $@

$(NODE:=/node_modules): %/node_modules: %/package-lock.json
	@if [ -n "$$TIMESCALE_URL" ] && [ $* = tests/timescale/server ]; then \
		echo "the tests of TimescaleDB will run on the server at TIMESCALE_URL"; \
	elif command -v npm >/dev/null; then \
		cd $* && npm ci --no-audit --no-fund && touch node_modules; \
	elif [ -n "$$CI" ]; then \
		echo "npm was not found, and CI leaves no test out" >&2; exit 1; \
	else \
		echo "npm was not found: tests that need $@ will be skipped"; \
	fi
