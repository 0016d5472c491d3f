# Two commands on a fresh machine with Python 3.11+ and make: `make demo` and `make test`. Everything else is a step of these.
PYTHON ?= python3
WORKERS ?= 0
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# What a real node (iproute2, iptables, a C compiler and libseccomp for runc) and mlwarden's own image (buildah, debootstrap) need of Debian.
PACKAGES := iproute2 iptables gcc libc6-dev libseccomp-dev pkg-config buildah debootstrap

.PHONY: help setup operators packages demo test test-operators lint image bench bench-compare bench-scanner requirements clean

help:
	@echo "make demo          start an embedded Kubernetes cluster, install mlwarden, apply a dozen workloads, say what happened"
	@echo "make test          all tests, on a real API server"
	@echo "make operators     the ecosystem's real operators, which nothing else builds (OPERATORS=jobset: only this one)"
	@echo "make test-operators mlwarden beside those operators that are built, which make test does not start"
	@echo "make lint          ruff, mypy strict, import-linter"
	@echo "make image         mlwarden's image from the Dockerfile, with debootstrap and buildah, as root (IMAGE=host:port pushes it there)"
	@echo "make bench         the figures of benchmarks/README.md, measured again (BENCH=pods, the default; BENCH=images: beside Kyverno)"
	@echo "make bench-compare this commit beside another one, alternating (COMMIT=HEAD~1)"
	@echo "make bench-scanner the scanner against trivy in a loop, and whose turn it is"
	@echo "make setup         the virtual environment and the pinned tools, nothing more (every command above does it first)"
	@echo "make packages      as root, on Debian: what a real node and the image need ($(PACKAGES))"
	@echo "make requirements  pin the newest dependencies, with hashes"

setup: $(STAMP)
	@$(BIN)/python -m mlwarden.embedded.build

# Nothing else builds these: tests beside an operator that is not built skip and say so.
operators: setup
	@$(BIN)/python -m mlwarden.embedded.build $(or $(OPERATORS),operators)

# Nothing but this target changes the machine, and no other one calls it.
packages:
	@test "$$(dpkg-query -W -f '$${db:Status-Status}\n' $(PACKAGES) 2>&1 | sort -u)" = installed || { \
		apt-get -o Acquire::Retries=3 update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install --yes --no-install-recommends -q $(PACKAGES); }

$(STAMP): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned Python packages (about a minute the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup
	@$(BIN)/mlwarden demo $(DEMO)

# One after the other. WORKERS=2: two at a time, each with a cluster of its own, in two thirds of the time; waits run out more often then.
test: setup
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

# A tier of its own: make test does not collect it.
test-operators: setup
	@$(BIN)/python -m pytest --session-timeout=900 $(or $(TESTS),tests/operators)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

image: setup
	@$(BIN)/python -m mlwarden.embedded.ownimage $(IMAGE)

bench: setup
	@$(BIN)/python benchmarks/run.py $(BENCH)

bench-compare: setup
	@$(BIN)/python benchmarks/compare.py $(COMMIT)

bench-scanner: setup
	@$(BIN)/python benchmarks/scanner.py $(BENCH)

requirements:
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --quiet --upgrade --python-version 3.11 pyproject.toml -o requirements/runtime.txt
	@$(BIN)/uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --quiet --upgrade --python-version 3.11 pyproject.toml --group dev -o requirements/dev.txt
	@$(BIN)/uv pip compile --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet --upgrade --python-version 3.11 --group build -o requirements/build.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
