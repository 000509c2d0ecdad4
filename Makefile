# `make` alone says what there is. Everything compiled goes to target, everything fetched to .run.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.PHONY: help up test verify fix e2e sim bench install build tools

# Where rustup puts cargo, for a shell that has not been told yet; under sudo that of who called it.
RUST := $(HOME)
ifneq ($(SUDO_USER),)
ifeq ($(wildcard $(HOME)/.rustup),)
RUST := $(shell getent passwd '$(SUDO_USER)' | cut -d: -f6)
export RUSTUP_HOME ?= $(RUST)/.rustup
endif
endif
export PATH := $(PATH):$(RUST)/.cargo/bin
export BEEMESH_TOOLS := $(CURDIR)/.run/tools
PREFIX ?= /usr/local
DESTDIR ?=

help:
	@echo 'make up       build beemesh and run a node in the foreground'
	@echo 'make test     everything a change must pass: verify, then e2e'
	@echo 'make verify   format, arrows between crates, purity, links, lints, documentation, unit tests; writes nothing'
	@echo 'make fix      what a tool can mend of that'
	@echo 'make e2e      the real program with the real kubectl, kills and power cuts; as root'
	@echo 'make sim      2,000 seeds of the simulator: the code that ships, one to five keepers, five cells, every fault it knows'
	@echo 'make tools    kubectl and helm of the tests, into .run/tools'
	@echo 'make bench    the release build beside etcd and bare TLS on this machine, as JSON lines; as root'
	@echo 'make install  the release build, man page, completions and a systemd unit, under PREFIX=$(PREFIX)'

# The one build: every later cargo call names the whole workspace too and finds its work done.
build:
	@sh install/needs.sh build
	cargo build --locked --workspace --all-targets

up:
	@[ "$$(id -u)" = 0 ] || case '$(UP)' in *--runtime*none*|*--cri*) ;; *) \
		echo "Running pods needs root: sudo make up. Without: make up UP='--runtime none'"; exit 1;; esac
	@sh install/needs.sh build
	@[ "$$(id -u)" != 0 ] || sh install/needs.sh run
	cargo build --locked --workspace --bins
	@exec target/debug/beemesh up $(UP)

test: verify e2e

verify: build
	@target/debug/xtask verify

fix:
	@sh install/needs.sh build
	cargo xtask fix

tools:
	@sh install/needs.sh e2e
	@sh e2e/tools.sh $(BEEMESH_TOOLS)

e2e: build tools
	RUST_LIB_BACKTRACE=0 cargo test --locked --workspace --no-fail-fast --test containerd --test scenarios -- --test-threads=2

SEEDS ?= 0..2000
sim:
	@sh install/needs.sh build
	cargo build --locked --workspace --bins
	@RUST_BACKTRACE=0 target/debug/sim --seeds $(SEEDS)

BENCH ?=
bench: tools
	@sh install/needs.sh build
	@sh e2e/etcd.sh $(BEEMESH_TOOLS)
	cargo build --locked --release --package beemesh --package e2e
	@target/release/bench $(BENCH)

install:
	@sh install/needs.sh build
	cargo build --locked --release --package beemesh
	install -D -m 0755 target/release/beemesh $(DESTDIR)$(PREFIX)/bin/beemesh
	mkdir -p $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)/etc/systemd/system
	target/release/beemesh man >$(DESTDIR)$(PREFIX)/share/man/man1/beemesh.1
	target/release/beemesh completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/beemesh
	sed 's|@PREFIX@|$(PREFIX)|' install/beemesh.service >$(DESTDIR)/etc/systemd/system/beemesh.service
	@echo 'Installed. Start it now and at every boot: systemctl enable --now beemesh'
