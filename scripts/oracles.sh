#!/bin/sh
# Runs all tests with every real peer there: restic from the system's packages, rustic from source.
#
# What is on PATH (or named by MUSTER_RESTIC, MUSTER_RUSTIC) is taken as it is. Else restic and the
# small tools are installed by apt-get, where that exists and we are root, and rustic is compiled
# once into target/oracles, which takes several minutes. Arguments go to the test runner.
set -eu

cd "$(dirname "$0")/.."
rustic_version=0.11.4

# install COMMAND PACKAGE: installs the package where the command is missing and we may.
install() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get install --yes --no-install-recommends "$2" && return
        apt-get update && apt-get install --yes --no-install-recommends "$2" && return
    fi
    echo "oracles: cannot install $2, please do" >&2
    exit 1
}

[ -n "${MUSTER_RESTIC:-}" ] || install restic restic
install python3 python3
install getfacl acl
install setpriv util-linux

if [ -z "${MUSTER_RUSTIC:-}" ]; then
    if command -v rustic >/dev/null; then
        MUSTER_RUSTIC=$(command -v rustic)
    else
        MUSTER_RUSTIC=$PWD/target/oracles/bin/rustic
        "$MUSTER_RUSTIC" --version 2>/dev/null | grep -qxF "rustic $rustic_version" ||
            cargo install rustic-rs --version "$rustic_version" --locked --root target/oracles
    fi
fi
export MUSTER_RUSTIC MUSTER_TEST_REQUIRE=all,oracles

echo "oracles: $("${MUSTER_RESTIC:-restic}" version), $("$MUSTER_RUSTIC" --version)"
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace "$@"
else
    exec cargo test --workspace "$@"
fi
