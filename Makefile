# `make` alone lists the targets. Every step says what it does, is cached, and may be interrupted and started again.
# Needs: Linux, Python 3.11 or newer, make; root for whatever starts the throw-away cluster or builds images.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
# The throw-away cluster's tools need nothing but Python's own library.
CLUSTER_TOOL := $(PYTHON) -m tests.cluster

# Name of the throw-away cluster of cluster-up, demo and demo-down.
NAME ?= finetune
# Nodes of the cluster that cluster-up starts.
NODES ?= 1
# For `make demo`: `throw-away`, or `current` for the cluster of the current kubectl context.
CLUSTER ?= throw-away
# For `make demo CLUSTER=current`: where images are pushed to (REGISTRY=registry.example.com/team), or
# OPERATOR_IMAGE=… TRAINER_IMAGE=… for images that are there already.
REGISTRY ?=
OPERATOR_IMAGE ?=
TRAINER_IMAGE ?=
# How many FineTuneJobs `make bench-operator` applies at once; several numbers are runs of their own. `make bench-cloud` takes one.
JOBS ?= 1000
# Where `make bench-trainer` trains: cpu or cuda.
DEVICE ?= cpu
# How many rows `make bench-data` checks; several numbers are runs of their own.
ROWS ?= 1000000 10000000
# More flags for `make bench-quality`.
FLAGS ?=
# How long `make soak` goes on. Its test reads SOAK_MINUTES: whoever sets that means the same.
MINUTES ?= $(or $(SOAK_MINUTES),60)
# More flags for pytest: `make test-unit PYTEST="-k lease -x"`.
PYTEST ?=

# A misspelt variable would be passed over in silence: `make cluster-down name=mine` would end another cluster. Others are
# taken: they are the environment of what make runs, such as HTTPS_PROXY.
VARIABLES := PYTHON NAME NODES CLUSTER REGISTRY OPERATOR_IMAGE TRAINER_IMAGE JOBS PEER DEVICE QUICK ROWS FLAGS MINUTES SOAK_MINUTES PYTEST UPGRADE
GIVEN := $(foreach one_of_all,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(one_of_all)))),$(one_of_all)))
UNKNOWN := $(filter-out $(VARIABLES),$(GIVEN))
ifneq ($(UNKNOWN),)
NEAR := import difflib, sys; near = lambda name: difflib.get_close_matches(name.upper(), sys.argv[1].split(), 1, 0.8)
MISSPELT := $(shell $(PYTHON) -c '$(NEAR); print(*(f"{one} (did you mean {near(one)[0]}?)" for one in sys.argv[2:] if near(one)))' '$(VARIABLES)' $(UNKNOWN))
ifneq ($(MISSPELT),)
$(error no target reads $(MISSPELT); there are $(VARIABLES))
endif
endif

# What is no number would fail minutes later, with a traceback. Only where it is read: an environment may have its own JOBS.
NUMBERS := JOBS ROWS MINUTES SOAK_MINUTES
CHANGED := $(foreach one,$(if $(filter bench-% soak,$(MAKECMDGOALS)),$(NUMBERS)),$(if $(filter-out file undefined,$(origin $(one))),$(one)))
WRONG := $(if $(CHANGED),$(shell printf '%s\n' $(foreach one,$(CHANGED),$(foreach number,$(or $(strip $($(one))),(nothing)),'$(one)=$(number)')) | grep -vE '=([0-9]*[1-9][0-9]*|[0-9]+\.[0-9]*[1-9][0-9]*)$$'))
ifneq ($(WRONG),)
$(error $(WRONG): write a number above 0)
endif

export PYTHON
# Whoever has it set has each process compile torch and all else anew: ten seconds of every trainer and test worker.
unexport PYTHONDONTWRITEBYTECODE

##@ Try it

.PHONY: demo
demo: tools ## run the quickstart on a throw-away cluster: tune, deploy and ask a model (CLUSTER=current: on your cluster)
	@$(PYTHON) -m demo --name "$(NAME)" --cluster "$(CLUSTER)" --registry "$(REGISTRY)" \
	  --operator-image "$(OPERATOR_IMAGE)" --trainer-image "$(TRAINER_IMAGE)"

.PHONY: demo-down
demo-down: python ## end what `make demo` started; images and downloads stay cached
	@$(PYTHON) -m demo --name "$(NAME)" --cluster "$(CLUSTER)" --down

##@ Check it

.PHONY: test
test: root ## lint, unit, contract, cluster and end-to-end tests: what CI runs
	@echo "==> 1/2 set-up: dependencies, Go programs and images"
	@$(MAKE) -j3 venv programs images
	@echo "==> 2/2 tests: unit, contract, cluster, end to end; lint beside them"
	@$(MAKE) -j2 lint-aside all-tests

# Lint is one process for a minute: the other processor would have nothing to do. What it says comes in one piece.
.PHONY: lint-aside all-tests
lint-aside:
	@said=$$(nice -n 10 $(MAKE) lint 2>&1) && code=0 || code=$$?; printf '\n%s\n' "$$said"; exit $$code

# A third worker computes from the start while those with clusters wait: half a processor had nothing to do.
all-tests:
	@scripts/tests.sh --numprocesses 3 --sample $(PYTEST) && scripts/bytecode.sh keep

.PHONY: test-all
test-all: root venv programs images ## everything with every row and every fault, not one of many that are alike (hours)
	@scripts/tests.sh --numprocesses 3 --every-fault $(PYTEST)

.PHONY: test-unit
test-unit: venv ## tests that need neither cluster nor root
	@$(BIN)/python -m pytest -m "not cluster and not e2e" $(PYTEST)

.PHONY: test-cluster
test-cluster: root venv programs ## tests on the throw-away control plane: definitions, contract, the cluster itself
	@scripts/tests.sh -m "cluster and not e2e" $(PYTEST)

.PHONY: test-e2e
test-e2e: root venv programs images ## tests with real pods
	@scripts/tests.sh -m e2e $(PYTEST)

.PHONY: bench-operator
bench-operator: root venv programs ## N jobs at once on nodes that KWOK plays (JOBS="1000 5000"), beside Kubeflow Trainer (PEER=1)
	@$(BIN)/python -m bench.scale --jobs $(JOBS) $(if $(PEER),--peer) --reports 1000 --write bench/results/operator.md

.PHONY: bench-quality
bench-quality: venv ## quality of models tuned on rated tweets and reviews, beside published figures (FLAGS="--train-rows 432 --test-rows 600")
	@$(BIN)/python -m bench.quality $(FLAGS)

.PHONY: bench-cloud
bench-cloud: root venv programs ## N jobs at simulated providers, one slow and one dead: calls, rates, who is late (JOBS=1000)
	@$(BIN)/python -m bench.cloud --jobs $(JOBS) --write bench/results/cloud.md

.PHONY: bench-memory
bench-memory: venv ## memory of trainings beside its estimate, on this CPU and, if there is one, this GPU
	@$(BIN)/python -m bench.memory

.PHONY: bench-evaluation
bench-evaluation: venv ## peak memory of an evaluation with test sets of ten thousand to a million rows
	@$(BIN)/python -m bench.memory.evaluation --write bench/results/evaluation.md

.PHONY: bench-trainer
bench-trainer: venv ## training beside TRL, transformers, LLaMA-Factory, Unsloth (DEVICE=cuda; half an hour; QUICK=1: minutes)
	@$(BIN)/python -m bench.trainer --device $(DEVICE) $(if $(QUICK),--quick)

.PHONY: bench-data
bench-data: venv ## `check` on large files beside datasets and tokenizers (ROWS="200000" is quick; else half an hour, 8 GB)
	@$(BIN)/python -m bench.data --rows $(ROWS) --write bench/results/data.md

.PHONY: fuzz
fuzz: venv ## random bytes as datasets, for hours: each must give a verdict
	@$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/unit/finetune_trainer/data/test_data_fuzz.py $(PYTEST)

.PHONY: test-chaos
test-chaos: root venv programs ## kill the operator at every fault point, refuse, cut and freeze (half an hour)
	@scripts/tests.sh --every-fault tests/chaos $(PYTEST)

.PHONY: soak
soak: root venv programs ## jobs come, fail and go for an hour: memory and connections of the operator (MINUTES=60)
	@SOAK_MINUTES=$(MINUTES) scripts/tests.sh tests/chaos/test_soak.py $(PYTEST)

.PHONY: test-alerts
test-alerts: venv programs ## the chart's alerts by Prometheus' own promtool, built the first time (minutes)
	@$(CLUSTER_TOOL) programs promtool
	@$(BIN)/python -m pytest tests/unit/helm/test_alerts.py $(PYTEST)

.PHONY: lint
lint: venv ## ruff, mypy, import-linter, yamllint, helm lint
	@echo "==> ruff";          $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "==> mypy";          cache=$${XDG_CACHE_HOME:-$$HOME/.cache}/finetune-operator; mkdir -p "$$cache/locks"; \
	 flock "$$cache/locks/mypy" $(BIN)/mypy --cache-dir "$$cache/mypy"  # two clones at once: "INTERNAL ERROR"
	@echo "==> import-linter"; $(BIN)/lint-imports
	@echo "==> yamllint";      $(BIN)/yamllint --strict .
	@helm=$$(ls -d "$${XDG_CACHE_HOME:-$$HOME/.cache}"/finetune-operator/bin/kube-*/helm 2>/dev/null | tail -1 || true); \
	 if [ -x "$${helm:-}" ]; then echo "==> helm lint"; "$$helm" lint --strict --quiet helm/finetune-operator; \
	 else echo "==> helm lint: left to the tests, helm is not built yet (make programs)"; fi

.PHONY: format
format: venv ## format the Python files with ruff
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

##@ Make it

.PHONY: venv
venv: ## .venv with the locked dependencies and this project
	@scripts/venv.sh

.PHONY: lock
lock: ## renew the locked dependencies: what changed in pyproject.toml, or all with UPGRADE=1
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

.PHONY: crds
crds: venv ## generate crds/ and the chart's copy from operator/finetune_api
	@$(BIN)/python -m finetune_api.crds crds helm/finetune-operator/files/crds

.PHONY: chart-values
chart-values: venv ## write the table of all values into the chart's README, from the comments of its values.yaml
	@$(BIN)/python -m tests.unit.helm.values_table

.PHONY: status-table
status-table: root venv programs ## write the tables of docs/reference/status.md from what a real operator writes
	@scripts/tests.sh --write-status-table tests/chaos/test_status_table.py $(PYTEST)

.PHONY: images
images: tools ## build the images of operator and trainer into the throw-away cluster's registry
	@echo "==> images (the trainer's has 6 GB: minutes the first time)"
	@$(CLUSTER_TOOL) images

.PHONY: programs
programs: tools ## build Kubernetes, helm and a registry from Go modules (minutes the first time)
	@$(CLUSTER_TOOL) programs

##@ A cluster of your own

.PHONY: cluster-up
cluster-up: tools ## start a throw-away cluster, print its kubeconfig (NAME=…, NODES=2)
	@$(CLUSTER_TOOL) up --name "$(NAME)" --nodes "$(NODES)"

.PHONY: cluster-down
cluster-down: python ## stop it and free all its resources (NAME=…)
	@$(CLUSTER_TOOL) down --name "$(NAME)"

.PHONY: cluster-status
cluster-status: python ## what runs (NAME=…)
	@$(CLUSTER_TOOL) status --name "$(NAME)"

##@ Tidy up

.PHONY: clean
clean: ## remove .venv, out/ and the caches of the tools in this folder
	@rm -rf .venv out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: clean-cache
clean-cache: ## remove all downloads, builds, images and clusters (tens of GB)
	@scripts/clean-cache.sh

# Told before anything is installed or compiled for it.
.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "error: make $(MAKECMDGOALS) starts a throw-away cluster, which needs root: run make as root, or with sudo" >&2; exit 1; }

.PHONY: python
python:
	@scripts/python-version.sh

# pip and uv for what is fetched from PyPI; Debian's Python comes without.
.PHONY: tools
tools:
	@scripts/python-tools.sh > /dev/null

MEANT := import difflib, sys; print(*(f" (did you mean {one}?)" for one in difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1)))
.DEFAULT:
	$(error there is no target $@$(shell $(PYTHON) -c '$(MEANT)' '$@' $$(sed -nE 's/^([a-z0-9-]+):.*## .*/\1/p' Makefile)): make alone lists all)

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
