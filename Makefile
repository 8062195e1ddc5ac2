# Every target is a line or two; what they do lives next to the things they do it to.
# `make help` lists them.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test bench fmt

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## watch a recovery: server, three executors and a load of checkouts on embedded SQLite
	cargo build --bin segno --bin checkout
	@$(TARGET)/debug/segno dev --app checkout -- $(TARGET)/debug/checkout

test: ## everything, real PostgreSQL and official SDKs included; ends with a count
	@tests/setup.sh && tests/postgres.sh tests/run.py

bench: ## what a checkpoint costs, on a durable PostgreSQL (see bench/README.md)
	cargo build --release -p segno-bench
	@SEGNO_POSTGRES_DURABLE=1 tests/postgres.sh $(TARGET)/release/recorder

fmt: ## format the Rust sources
	cargo fmt --all
