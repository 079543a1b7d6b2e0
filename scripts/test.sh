#!/usr/bin/env bash
# All tests: set up what they talk to, run them with nextest where present, then the doctests.
set -euo pipefail
source "$(dirname "$0")/toolchain.sh"

scripts/test-setup.sh

if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace
else
  cargo test --workspace --lib --bins --tests
fi
cargo test --workspace --doc
