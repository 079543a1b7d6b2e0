# The few commands a newcomer needs; the work is in scripts/ and in `cargo xtask`.

SHELL := /bin/bash

.PHONY: help test ci demo oracles bench

help:
	@echo "make test     all tests (as root: installs what they talk to, else says what is missing)"
	@echo "make ci       every check, as CI runs them: fmt, clippy, tidy, tests, docs, deny, fuzz smoke"
	@echo "make demo     the whole loop on this machine, in about a minute: protect, lose, recover, measure"
	@echo "make oracles  compare with the real restic and rustic, both ways, on odd trees"
	@echo "make bench    measure muster beside restic (BENCH='--scale 0.02 --runs 1' for a look)"

test:
	@scripts/test.sh

ci:
	@scripts/ci.sh

demo:
	@scripts/demo.sh

oracles:
	@scripts/oracles.sh

bench:
	@source scripts/toolchain.sh && cargo xtask bench $(BENCH)
