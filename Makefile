# `make` lists what there is. Each target installs what it lacks; see scripts/deps.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO ?= cargo
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
FUZZ_TARGETS := token path endpoint config certificate signed access_token usage_record
FUZZ_SECONDS ?= 600

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo demo-check
demo: deps-build ## Build the gateway and take a walk through it
	$(CARGO) build --locked
	$(CARGO) run --quiet --locked -- demo $(if $(CHECK),--check)

demo-check: ## The same walk without a reader: fails when a step does not go as told
	@$(MAKE) --no-print-directory demo CHECK=1

# cargo-nextest has the rule about drills in .config/nextest.toml, cargo test is told it here. Only the latter runs doctests.
.PHONY: test
test: deps-build ## Run all tests, with a PostgreSQL and a chain of their own
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    scripts/test-env $(CARGO) nextest run --locked --profile $(if $(CI),ci,default); \
	else \
	    scripts/test-env $(CARGO) test --locked --no-fail-fast --lib --bins --tests -- --skip drill; \
	    scripts/test-env $(CARGO) test --locked --no-fail-fast --lib --bins --tests -- --test-threads 1 drill; \
	fi
	$(CARGO) test --quiet --locked --doc

.PHONY: lint lint-format lint-clippy lint-docs lint-deny
lint: lint-format lint-clippy lint-docs lint-deny ## Check format, code, documentation and dependencies

lint-format:
	$(CARGO) fmt --check

lint-clippy: deps-build
	$(CARGO) clippy --locked --all-targets -- -D warnings

lint-docs: deps-build
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --no-deps

# The advisory database lives in a git repository that some networks do not let through, so it is asked on demand.
lint-deny: deps-deny
	$(CARGO) deny --locked check --hide-inclusion-graph licenses bans sources $(if $(CI_ADVISORIES),advisories)

.PHONY: bench
bench: deps-bench ## Measure what requests, handshakes and tokens cost, beside others; BENCH_SECONDS=1 BENCH_ROUNDS=1 for a first look
	$(CARGO) build --locked --release
	$(CARGO) build --locked --release --bench load
	benches/side-by-side

.PHONY: fuzz
fuzz: deps-fuzz ## Feed nonsense to each parser for FUZZ_SECONDS (600) seconds
	@cp Cargo.lock fuzz/Cargo.lock
	@for target in $(FUZZ_TARGETS); do \
	    echo "== $$target"; \
	    $(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS); \
	done

.PHONY: sqlx
sqlx: deps-build ## Write .sqlx anew, after changing a Postgres statement or a migration
	scripts/sqlx-prepare

.PHONY: deps-build deps-bench deps-deny deps-fuzz
deps-build:
	@scripts/deps build

deps-bench:
	@scripts/deps build bench
	@scripts/npm-ci benches/fastify

deps-deny: deps-build
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny --version $(CARGO_DENY_VERSION)

deps-fuzz: deps-build
	@rustup toolchain list | grep -q ^nightly || { echo "Fuzzing needs: rustup toolchain install nightly" >&2; exit 1; }
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz --version $(CARGO_FUZZ_VERSION)
