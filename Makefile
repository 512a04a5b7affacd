# One command for everything. `make help` lists them; CONTRIBUTING.md says when to use which.
# Needs Python 3.11 or newer (with venv), git and make: nothing else.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.run.stamp
DEV_STAMP := $(VENV)/.dev.stamp
FUZZ := .make/fuzz
FUZZ_STAMP := $(FUZZ)/.stamp
BENCH := .make/bench
BENCH_STAMP := $(BENCH)/.stamp
ARGS ?=
ON_ALL_CORES := -n auto --maxprocesses 8 --dist worksteal

# The newest Python for which every pinned library has a wheel. Each candidate is started, not just
# looked up: pyenv's shims exist for versions that are not active.
FIND_PYTHON = for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v "$$python"; break; }; done

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

##@ Use
.PHONY: run
run: $(RUN_STAMP) ## Start a cluster of three nodes on this machine (data in ./data)
	@exec $(BIN)/kvstore cluster $(ARGS)

##@ Check
.PHONY: test check lint types layers pytest pytest-quick coverage coverage-core format
test: $(DEV_STAMP) ## Check everything: lint, types, layers and all tests
	@$(call each,lint types layers pytest)

check: $(DEV_STAMP) ## The same without the slow end (no real processes)
	@$(call each,lint types layers pytest-quick)

lint: $(DEV_STAMP) ## Rules and layout of the code
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet . \
		|| { echo 'Some files are not formatted: run `make format`.' >&2; exit 1; }

types: $(DEV_STAMP) ## Types, strictly
	@$(BIN)/mypy --no-error-summary

layers: $(DEV_STAMP) ## Which package may import which
	@out=$$($(BIN)/lint-imports 2>&1) || { printf '%s\n' "$$out"; exit 1; }

# Real processes are measured and broken one at a time; all else shares the cores. Where ARGS say
# what to run, one run does.
pytest: $(DEV_STAMP)
ifeq ($(ARGS),)
	@status=0; \
	$(BIN)/python -m pytest $(ON_ALL_CORES) -m "not e2e" || status=1; \
	$(BIN)/python -m pytest -m e2e || status=1; \
	exit $$status
else
	@$(BIN)/python -m pytest $(ARGS)
endif

pytest-quick: $(DEV_STAMP)
	@$(BIN)/python -m pytest $(ON_ALL_CORES) -m "not e2e and not slow" $(ARGS)

coverage: $(DEV_STAMP) ## Which lines and branches the quick tests do not reach
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q -m "not e2e and not slow" $(ARGS)
	@$(BIN)/coverage combine -q && $(BIN)/coverage report

CORE := raft/*,wal/*,kvstore/mvcc/*,kvstore/lease/*
coverage-core: $(DEV_STAMP) ## The same of raft, log, store and leases: 95 % at least
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q tests/raft tests/wal tests/kvstore/mvcc tests/kvstore/lease \
		tests/kvstore/apply tests/kvstore/server $(ARGS)
	@$(BIN)/coverage combine -q && $(BIN)/coverage report --include='$(CORE)' --fail-under=95

format: $(DEV_STAMP) ## Lay the code out and mend what can be mended
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix .

# Runs each target in turn, also after one that failed, and fails if any of them did. pytest is the
# last and prints its own times, so that a summary stays the last line.
define each
status=0; failed=; \
for part in $(1); do \
	start=$$(date +%s); echo "== $$part"; \
	$(MAKE) --no-print-directory "$$part" || { status=1; failed="$$failed $$part"; }; \
	case $$part in pytest*) ;; *) echo "   $$part took $$(($$(date +%s) - start)) s" ;; esac; \
done; \
if [ $$status -ne 0 ]; then echo "failed:$$failed" >&2; fi; exit $$status
endef

##@ Measure and torment
.PHONY: bench bench-quick chaos fuzz conformance etcdctl client-go sim sim-mutants sim-mutants-survive
bench: $(BENCH_STAMP) ## Measure beside etcd and write bench/RESULTS.md (an hour; PARTS="watch leases")
	@$(BENCH)/bin/python -m bench $(PARTS) $(ARGS)

bench-quick: $(BENCH_STAMP) ## The same as a look of three minutes that writes nothing
	@$(BENCH)/bin/python -m bench --quick $(PARTS) $(ARGS)

chaos: $(DEV_STAMP) ## Break real nodes, networks, disks and clocks under load, for MINUTES=n
	@$(BIN)/python -m tests.chaos --minutes $${MINUTES:-5} --nodes $${NODES:-3} \
		$${SEED:+--seed $$SEED} $${FAULTS:+--faults "$$FAULTS"} $(ARGS)

fuzz: $(FUZZ_STAMP) ## Ask the API what nobody would ask, and hold each answer against its document
	@$(FUZZ)/bin/python -m tests.fuzz $(ARGS)

sim: $(DEV_STAMP) ## Run clusters in virtual time (MINUTES=, SEEDS=, FROM=, PROFILE=)
	@$(BIN)/python -m tests.sim run --minutes $${MINUTES:-3} --seeds $${SEEDS:-1000000} \
		--from $${FROM:-1} --profile $${PROFILE:-all} $(ARGS)

sim-mutants: $(DEV_STAMP) ## Plant each known bug; the simulator must find it (SEEDS=n at most)
	@$(BIN)/python -m tests.sim.mutants hunt --seeds $${SEEDS:-200} $(ARGS)

sim-mutants-survive: $(DEV_STAMP) ## Prove that the unit tests find none of these bugs (an hour)
	@$(BIN)/python -m tests.sim.mutants survive $(ARGS)

conformance: $(DEV_STAMP) ## Compare SEEDS=n sequences of calls with etcd (FROM=k: the first)
	@$(BIN)/python -m tests.conformance --seeds $${SEEDS:-200} --from $${FROM:-1} $(ARGS)

etcdctl: $(DEV_STAMP) ## Compare every subcommand of etcdctl with etcd, in every setting
	@$(BIN)/python -m tests.etcdctl --perf $(ARGS)

client-go: $(DEV_STAMP) ## Build etcd's own client in Go, and let it use three nodes
	@$(BIN)/python -m tests.clients $(ARGS)

##@ Keep house
.PHONY: setup lock proto clean help
setup: $(DEV_STAMP) ## Make the environment with all the tools

lock: ## Resolve the newest allowed versions and write the lock files
	@rm -rf .make/lock && $(MAKE) --no-print-directory .make/lock/bin/python
	@$(call freeze,.,What a node runs on and the build backend; written by `make lock`.,requirements.lock)
	@$(call freeze,.[dev],What a node runs on and the tools of the tests; written by `make lock`.,requirements-dev.lock)
	@rm -rf .make/lock && $(MAKE) --no-print-directory .make/lock/bin/python
	@$(call freeze,.[fuzz],What a node runs on and what `make fuzz` asks it with; written by `make lock`.,requirements-fuzz.lock)
	@rm -rf .make/lock && $(MAKE) --no-print-directory .make/lock/bin/python
	@$(call freeze,.[bench],What a node runs on and what measures and draws in `make bench`; written by `make lock`.,requirements-bench.lock)
	@rm -rf .make/lock

proto: $(DEV_STAMP) ## Compile the .proto files into the tables that the gRPC face reads
	@$(BIN)/python proto/generate.py

clean: ## Remove the environment and all caches (data stays)
	rm -rf $(VENV) .make build dist htmlcov .coverage *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# No host, no path and no project itself may enter a lock: names and versions only.
define freeze
.make/lock/bin/python -m pip install --quiet --disable-pip-version-check --upgrade setuptools '$(1)' \
&& { echo '# $(2)'; .make/lock/bin/python -m pip freeze --all --exclude pip --exclude kvstore \
	| sed "s/^uvloop==.*/& ; sys_platform == 'linux'/"; } > $(3)
endef

$(RUN_STAMP): requirements.lock pyproject.toml | $(BIN)/python
	@echo 'Installing the pinned libraries into $(VENV) …'
	@$(PIP_INSTALL) -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo 'Installing the pinned libraries and tools into $(VENV) …'
	@$(PIP_INSTALL) -r requirements-dev.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Each in an environment of its own: they bring much that nothing else needs.
$(FUZZ_STAMP) $(BENCH_STAMP): .make/%/.stamp: requirements-%.lock pyproject.toml | .make/%/bin/python
	@echo 'Installing the pinned libraries of `make $*` into .make/$* …'
	@.make/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
		-r requirements-$*.lock
	@.make/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
		--no-deps --no-build-isolation --editable .
	@touch $@

# `make run PYTHON=/path/to/python3` chooses another one.
$(BIN)/python .make/lock/bin/python $(FUZZ)/bin/python $(BENCH)/bin/python:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo 'kvstore needs Python 3.11 or newer, and found none.' >&2; \
		echo 'On Debian or Ubuntu: apt-get install python3 python3-venv. Elsewhere: python.org.' >&2; \
		echo 'If yours has another name: make run PYTHON=/path/to/python3' >&2; exit 1; \
	fi; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$python does not start or is older than Python 3.11, which kvstore needs." >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$python cannot make environments: its venv or ensurepip module is missing." >&2; \
		echo "On Debian or Ubuntu: apt-get install python$$version-venv" >&2; exit 1; }; \
	directory=$(patsubst %/bin/python,%,$@); \
	"$$python" -m venv "$$directory" || { rm -rf "$$directory"; exit 1; }
