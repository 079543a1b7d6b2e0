#!/usr/bin/env bash
# Builds muster and runs `muster demo`: the whole loop on this machine, in about a minute.
#
# The build is the ordinary one for development: its dependencies are optimised (Cargo.toml), the
# demo is as fast as with a release build, which would take several times as long to make, and
# `make test` uses it again. Arguments go to the demo. MUSTER_BIN names another binary.
set -euo pipefail
here=$PWD
source "$(dirname "$0")/toolchain.sh"

if [[ -z ${MUSTER_BIN:-} ]]; then
  echo "Building muster; the first time takes some minutes …"
  cargo build --quiet --package muster
  target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  MUSTER_BIN=$target/debug/muster
  echo
fi

# The folder of the demo is made where the caller stands.
cd "$here"
exec "$MUSTER_BIN" demo "$@"
