# Every target is a line or two; what they do lives next to the things they do it to.
# `make help` lists them.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test bench console image image-test upgrade-test docs fmt

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## watch a recovery: server, three executors and a load of checkouts on embedded SQLite
	@test -d web/dist || ! command -v npm >/dev/null || $(MAKE) --no-print-directory console || \
		echo "The console could not be built; the demo goes on without it."
	cargo build --bin segno --bin checkout
	@$(TARGET)/debug/segno dev --app checkout --open -- $(TARGET)/debug/checkout --stock-takes '*/30 * * * * *'

test: ## everything, real PostgreSQL and official SDKs included; ends with a count
	@tests/setup.sh && tests/postgres.sh tests/run.py

bench: ## what a checkpoint and a fleet cost, and how fast a dead executor's work goes on (see bench/README.md)
	cargo build --release -p segno-measure -p segno-server
	@SEGNO_POSTGRES_DURABLE=1 tests/postgres.sh $(TARGET)/release/recorder
	@SEGNO_POSTGRES_DURABLE=1 tests/postgres.sh $(TARGET)/release/fleet --json $(TARGET)/fleet.json
	@SEGNO_POSTGRES_DURABLE=1 tests/postgres.sh $(TARGET)/release/fleet handover --json $(TARGET)/handover.json \
		--relay "$$(bench/relay.sh $(TARGET)/relay)"

console: ## build the console into web/dist, which the next build of the binary embeds
	cd web && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch server/build.rs

image: ## build the container image segno:latest, with docker, podman or buildah
	@deploy/image.sh

image-test: ## build the image here, without a registry or a daemon, and run it (root, buildah)
	@deploy/image-test.sh

upgrade-test: ## upgrade from another release or commit and roll back: make upgrade-test FROM=v0.1.0
	cargo build --workspace --bins
	@tests/setup.sh && tests/deploy/environment.sh && tests/sdk/environments.py tests python
	@SEGNO_UPGRADE_FROM=$(FROM) SEGNO_BIN=$(abspath $(TARGET))/debug/segno tests/postgres.sh \
		.cache/deploy/python/bin/python -m pytest -c tests/deploy/pytest.ini tests/deploy/test_upgrade.py tests/deploy/test_schema.py

docs: ## build the documentation into site/
	@tests/deploy/environment.sh && .cache/deploy/python/bin/mkdocs build --strict

fmt: ## format the Rust sources
	cargo fmt --all
