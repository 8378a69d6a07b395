# `make dev` and `make test` are all a newcomer needs; both install what is missing and say so.

# Outside the clone, so that every clone shares the long RocksDB build.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/coxswain/target
export CARGO_TERM_PROGRESS_WHEN ?= never
ARGS ?=

.PHONY: dev test fast live fuzz sim soak mutants upgrade build tools clients lint clean help

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

dev: build ## three masters and two nodes on this machine, until Ctrl-C (ARGS="--masters 1 …")
	@echo "make: starting the cluster"
	@$(CARGO_TARGET_DIR)/release/coxswain dev $(ARGS)

build: tools ## the release binary
	@echo "make: building the release binary (the first build takes about half an hour on 2 cores)"
	@. scripts/environment.sh && cargo build --release --locked --bin coxswain
	@echo "make: built $(CARGO_TARGET_DIR)/release/coxswain"

test: tools clients ## everything CI runs
	@scripts/test.sh

fast: tools clients ## the tests without those that start processes and containers: under two minutes
	@scripts/test.sh fast

live: tools clients ## only those
	@scripts/test.sh live

sim: tools ## replays one seed of the store's simulation (SEED=7)
	@scripts/sim.sh $(SEED)

soak: tools ## the store's simulation, for as many seeds as there is time for (SECONDS_=3600, FIRST=seed)
	@SECONDS_=$(SECONDS_) FIRST=$(FIRST) scripts/sim.sh soak

mutants: tools ## the table of planted mistakes, and which check of the simulation finds each
	@SEEDS=$(SEEDS) scripts/sim.sh mutants

upgrade: tools ## masters of an earlier program become this one, and go back, while others write (OLD=/path/to/coxswain)
	@. scripts/environment.sh && cargo build --locked --bin coxswain && \
	  COXSWAIN_OLD="$(abspath $(OLD))" cargo test --locked -p tests --test failover upgraded -- --nocapture

fuzz: tools ## every decoder for ten minutes, guided by coverage (FUZZ_SECONDS=60 for less)
	@scripts/fuzz.sh

lint: tools ## formatting and lints
	@. scripts/environment.sh && cargo fmt --all --check && cargo clippy --locked --workspace --all-targets

tools: ## installs what the build and the tests need, if it is missing
	@scripts/tools.sh

clients: tools ## fetches the kubectl, Helm and client libraries that the tests drive
	@scripts/clients.sh

clean: ## removes the shared build cache
	rm -rf "$(CARGO_TARGET_DIR)"
