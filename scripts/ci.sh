#!/usr/bin/env bash
# Every check, in the order in which failures are cheapest to find; prints what each stage took.
#
# A stage whose tool is not installed is skipped by name, never silently.
set -euo pipefail
source "$(dirname "$0")/toolchain.sh"

summary=()
current=

stage() {
  current=$1
  shift
  printf '\n== %s: %s\n' "$current" "$*"
  local start=$SECONDS
  "$@"
  summary+=("$(printf '%5d s  %s' $((SECONDS - start)) "$current")")
  current=
}

skip() {
  printf '\n== %s: skipped, %s\n' "$1" "$2"
  summary+=("skipped  $1: $2")
}

finish() {
  local code=$?
  if [[ -n $current ]]; then
    summary+=("failed   $current")
  fi
  printf '\n== %s after %d s\n' "$([[ $code == 0 ]] && echo passed || echo FAILED)" "$SECONDS"
  printf '%s\n' "${summary[@]}"
}
trap finish EXIT

for component in fmt clippy; do
  if ! cargo "$component" --version >/dev/null 2>&1; then
    echo "cargo $component is missing: rustup component add rustfmt clippy" >&2
    exit 1
  fi
done

stage fmt cargo fmt --all --check
stage clippy cargo clippy --workspace --all-targets --locked -- -D warnings
stage tidy cargo xtask tidy
stage test make --no-print-directory test
stage rustdoc env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

if cargo deny --version >/dev/null 2>&1; then
  stage deny cargo deny check bans licenses sources
else
  skip deny "cargo-deny is not installed (cargo install cargo-deny --locked)"
fi

if [[ -x scripts/fuzz.sh ]]; then
  stage fuzz scripts/fuzz.sh
else
  skip fuzz "there is no scripts/fuzz.sh"
fi
