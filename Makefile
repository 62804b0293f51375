# `make run` starts everything, `make test` tests everything; both install what is missing first.

export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help run test lint bench bench-subscriptions schema setup setup-tests

help:
	@echo 'make run      build and start on http://127.0.0.1:4000, with a private PostgreSQL in .dealstream/'
	@echo 'make test     run all tests'
	@echo 'make lint     formatting, clippy and the documentation, warnings denied'
	@echo 'make schema   write schema.graphql anew from the code'
	@echo 'make bench    measure requests, CPU and memory (see bench/README.md)'
	@echo 'make bench-subscriptions'
	@echo '              the same for thousands of subscribers'
	@echo 'make setup    only install what is missing'

run: setup
	cargo build --release --locked
	exec $(TARGET)/release/dealstream serve

test: setup-tests
	cargo test --locked

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --no-deps --document-private-items

schema:
	cargo build --locked
	$(TARGET)/debug/dealstream schema >$(TARGET)/schema.graphql
	mv $(TARGET)/schema.graphql schema.graphql

bench: setup
	bench/run

bench-subscriptions: setup
	bench/subscriptions

setup:
	@deploy/setup.sh

setup-tests:
	@deploy/setup.sh tests
