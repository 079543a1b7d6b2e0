#!/usr/bin/env bash
# Fuzzes what a repository's bytes and servers' answers go through first: fuzz/fuzz_targets.
#
#   scripts/fuzz.sh [SECONDS] [TARGET...]   SECONDS for each target, else MUSTER_FUZZ_SECONDS or 60
#
# Two targets run at a time. New inputs are kept in target/fuzz/corpus, so that the next run goes
# on where this one ended; what broke a target is in target/fuzz/artifacts (see fuzz/README.md).
#
#   MUSTER_TEST_REQUIRE=fuzz   where no fuzzer can be built, that is a failure and not a skip
#   MUSTER_TEST_INSTALL=no     install nothing (else, as root with apt-get, the C++ compiler)
#
# A pinned stable compiler is enough: coverage is a pass of LLVM that needs no sanitizer. There is
# no AddressSanitizer because our own code has no `unsafe` for it to watch.
set -euo pipefail
source "$(dirname "$0")/toolchain.sh"

seconds=${MUSTER_FUZZ_SECONDS:-60}
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi
targets=("$@")
if [[ ${#targets[@]} == 0 ]]; then
  mapfile -t targets < <(basename -s .rs fuzz/fuzz_targets/*.rs)
fi
work=$PWD/target/fuzz

skip() {
  echo "SKIPPED: fuzzing, because $1"
  [[ ,${MUSTER_TEST_REQUIRE:-}, != *,fuzz,* ]] || exit 1
  exit 0
}

may_install() {
  [[ ${MUSTER_TEST_INSTALL:-yes} != no && $(id -u) == 0 ]] && command -v apt-get >/dev/null
}

host=$(rustc -vV | sed -n 's/^host: //p')
[[ $host == *-linux-gnu ]] || skip "libFuzzer is only tried on Linux with glibc, and this is $host"
if ! command -v c++ >/dev/null && may_install; then
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy g++; } >/dev/null || true
fi
command -v c++ >/dev/null || skip "there is no C++ compiler for libFuzzer (apt-get install g++)"

# What cargo-fuzz passes too. With --target, build scripts are spared.
coverage=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  --cfg fuzzing
)
# Not --locked: when the engine gets a new dependency, fuzz/Cargo.lock learns of it here.
build=(
  cargo build --quiet --release --manifest-path fuzz/Cargo.toml
  --target "$host" --target-dir "$work"
)
mkdir -p "$work"
if ! RUSTFLAGS="${coverage[*]}" "${build[@]}" --bins 2>"$work/build.log"; then
  # Our own mistakes are no reason to skip.
  if cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir "$work"; then
    tail -n 20 "$work/build.log" >&2
    skip "it does not build with coverage here (the log is target/fuzz/build.log)"
  fi
  exit 1
fi

# fuzz TARGET: says how it went in one line; fails, with the end of the log, on a finding.
fuzz() {
  local target=$1 log=$work/$1.log
  mkdir -p "$work/corpus/$target" "$work/artifacts/$target" "fuzz/seeds/$target"
  if "$work/$host/release/$target" "$work/corpus/$target" "fuzz/seeds/$target" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/artifacts/$target/" >"$log" 2>&1; then
    local runs features
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    features=$(grep -o ' cov: [0-9]*' "$log" | tail -n 1)
    echo "fuzz: $target: nothing found in $seconds s, $runs inputs,$features"
  else
    tail -n 40 "$log" >&2
    echo "fuzz: $target: FAILED, the input is in target/fuzz/artifacts/$target (see fuzz/README.md)" >&2
    return 1
  fi
}

failed=0
running=0
for target in "${targets[@]}"; do
  if [[ $running == 2 ]]; then
    wait -n || failed=1
    running=1
  fi
  fuzz "$target" &
  running=$((running + 1))
done
for ((; running > 0; running--)); do
  wait -n || failed=1
done
exit "$failed"
