# What a person or CI does here; `make help` lists it.

PYTHON ?= python3
BUF_VERSION := 1.75.0
VENV := .venv
BIN := $(VENV)/bin
DISTRIBUTED := .venv-distributed
PEERS := .venv-peers
SERVING_PEERS := .venv-peers-serving
ONLY := .*
# One file of tests runs in one process, and all faults in the same, so that none disturbs another.
IN_PARALLEL := --dist loadgroup --no-loadscope-reorder
# Where Python keeps nothing that it has compiled, it does so in each process again: pytest's
# plug-ins alone take 2 s of each that runs tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo play test test-all test-distributed check format lint lint-proto types proto proto-check tables audit faults lock containers kubernetes peers peers-training \
	peers-serving benchmark-training benchmark-serving clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 20

# The environment is made anew where the requirements changed; an interrupted one is not kept.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("mlpserve needs Python 3.11 or newer, not " + sys.version.split()[0] + "; name another with: make PYTHON=...")'
	@$(PYTHON) -m venv --clear $(VENV)
	@echo 'preparing $(VENV); the first time this takes a minute or two'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed  ## train, serve and predict once, with pictures
	@$(BIN)/python examples/demo.py

play: $(VENV)/installed  ## train, serve and open the playground, a page to draw on, at localhost:8080
	@$(BIN)/python examples/play.py

test: $(VENV)/installed  ## run the tests, in about four minutes; of soaks and the like less than `check` does
	$(BIN)/pytest --quiet $(IN_PARALLEL) --numprocesses 4 -m 'not exhaustive and not alone' --hypothesis-profile quick

test-all: $(VENV)/installed  ## run all tests
	$(BIN)/pytest --quiet $(IN_PARALLEL) --numprocesses 3 -m 'not alone'
	$(BIN)/pytest --quiet -m alone

# An environment of its own, because it takes a gigabyte; never part of `dev`.
$(DISTRIBUTED)/installed: pyproject.toml
	@$(PYTHON) -m venv --clear $(DISTRIBUTED)
	@echo 'preparing $(DISTRIBUTED); this takes some minutes'
	@$(DISTRIBUTED)/bin/pip install --quiet --disable-pip-version-check --editable '.[distributed]'
	@touch $@

test-distributed: $(DISTRIBUTED)/installed  ## run the tests on clusters of Ray and Spark, and in DuckDB (Spark needs Java)
	$(DISTRIBUTED)/bin/pytest --quiet tests/distributed

check: lint lint-proto types proto-check audit test-all  ## all that CI demands

format: $(VENV)/installed  ## bring the code into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(VENV)/installed  ## format and lint, changing nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/installed  ## check the types, of the tests too
	$(BIN)/mypy

lint-proto:  ## lint the wire contract (needs Node.js; left out where there is none)
	@if command -v npx >/dev/null; then cd proto && npx --yes @bufbuild/buf@$(BUF_VERSION) lint && echo 'buf lint: clean'; \
	elif [ -n "$$CI" ]; then echo 'lint-proto: CI needs npx (Node.js)' >&2; exit 1; \
	else echo 'lint-proto: left out, npx (Node.js) is not installed'; fi

PROTOC = PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet,only_sync:$(1) \
	proto/mlpserve/v1/*.proto
# Descriptors and types only: the classes are made when they are loaded, in a pool of their own.
PROTOC_OIP = PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto \
	--pyi_out=$(1) --descriptor_set_out=$(1)/mlpserve/oip/inference.binpb proto/mlpserve/oip/inference.proto

proto: $(VENV)/installed  ## generate the protobuf code anew, beside its .proto files
	$(call PROTOC,proto)
	$(call PROTOC_OIP,proto)

tables: $(VENV)/installed  ## write the tables of all settings and metrics anew
	$(BIN)/python docs/tables.py

proto-check: $(VENV)/installed  ## prove that the committed protobuf code is current
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && mkdir -p "$$fresh/mlpserve/oip" && \
	$(call PROTOC,"$$fresh") && $(call PROTOC_OIP,"$$fresh") && \
	for file in $$(cd "$$fresh" && find . -type f); do \
		cmp "$$fresh/$$file" "proto/$$file" || { echo 'proto-check: run `make proto`' >&2; exit 1; }; \
	done && echo 'generated code: current'

audit: $(VENV)/installed  ## ask whether vulnerabilities are known of what the images and we install
	@$(BIN)/python tests/support/audit.py constraints.txt

faults: $(VENV)/installed  ## do to a server what goes wrong in production, and write the table of it anew
	$(BIN)/pytest tests/server/faults --fault-table docs/faults.md

lock:  ## choose the newest packages for the images anew (needs Docker)
	docker run --rm --volume "$$PWD:/source:ro" --workdir /source python:3.13-slim sh -c ' \
		pip install --quiet --root-user-action ignore ".[trainer,server,http,predict,s3,gcs,azure]" >&2 && \
		grep "^#" constraints.txt && pip freeze --exclude mlpserve' > constraints.new
	mv constraints.new constraints.txt

containers:  ## build the images, run them as in production and check what they answer (needs Docker)
	tests/containers.sh

kubernetes: $(VENV)/installed  ## run the pods of deploy/kubernetes in Docker (needs Docker and kubectl)
	PYTHONPATH=tests/support $(BIN)/python tests/kubernetes.py

# An environment of its own, because it takes a gigabyte; never part of `dev`.
$(PEERS)/installed-training: pyproject.toml benchmarks/peers-training.txt
	@$(PYTHON) -m venv $(PEERS)
	@echo 'preparing $(PEERS); this takes some minutes'
	@$(PEERS)/bin/pip install --quiet --disable-pip-version-check --editable '.[trainer]' --requirement benchmarks/peers-training.txt
	@touch $@

peers-training: $(PEERS)/installed-training  ## install the libraries that training is compared with

benchmark-training: $(PEERS)/installed-training  ## compare the speed of training; ARGUMENTS='--repeats 1' and the like
	@$(PEERS)/bin/python benchmarks/training.py --output benchmarks/README.md $(ARGUMENTS)

# One environment each: their dependencies exclude one another. What cannot be installed is named, and
# left out by the benchmark. ONLY='kserve|mlserver' leaves out all others.
$(SERVING_PEERS)/installed: benchmarks/peers-serving.txt
	@echo 'preparing $(SERVING_PEERS); this takes some minutes'
	@grep -v '^#' $< | grep -E '^($(ONLY)) ' | while read -r name requirements; do \
		environment=$(SERVING_PEERS)/$$name; \
		$(PYTHON) -m venv "$$environment" && \
		"$$environment/bin/pip" install --quiet --disable-pip-version-check $$requirements numpy || \
		{ echo "peers-serving: $$name cannot be installed here" >&2; rm -rf "$$environment"; }; \
	done
	@touch $@

peers-serving: $(SERVING_PEERS)/installed  ## install the servers that serving is compared with

peers: peers-training peers-serving  ## install all that the benchmarks compare with

benchmark-serving: $(VENV)/installed $(SERVING_PEERS)/installed  ## compare the speed of serving; ARGUMENTS='--repeats 1' and the like
	@$(BIN)/python benchmarks/serving.py --output benchmarks/README.md $(ARGUMENTS)

clean:  ## remove what the targets above made
	rm -rf $(VENV) $(DISTRIBUTED) $(PEERS) $(SERVING_PEERS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
