#!/usr/bin/env bash
# Installs, where it may (root and apt-get), what the tests talk to; says what is missing.
#
#   MUSTER_TEST_REQUIRE=all  something missing is a failure, as in CI
#   MUSTER_TEST_INSTALL=no   install nothing, only look
set -euo pipefail

# program, Debian package, and what is not tested without it
needed="
restic    restic      byte compatibility with the real restic
setfattr  attr        extended attributes
setfacl   acl         access control lists
setpriv   util-linux  unreadable files (tests drop root)
python3   python3     the independent walker, the bench and evidence verified by hand
openssl   openssl     evidence verified by hand
unshare   util-linux  full and read-only disks (tests mount some)
"

# missing FIELD: that column of the programs that are not on the PATH.
missing() {
  local program package without
  while read -r program package without; do
    if [[ -n $program ]] && ! command -v "$program" >/dev/null; then
      case $1 in
        package) echo "$package" ;;
        report) echo "  $program (apt-get install $package): skipped without it: $without" ;;
      esac
    fi
  done <<<"$needed"
}

may_install() {
  [[ ${MUSTER_TEST_INSTALL:-yes} != no && $(id -u) == 0 ]] && command -v apt-get >/dev/null
}

install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q && apt-get install -qy --no-install-recommends "$@"
}

if ! command -v cc >/dev/null; then
  echo "a C compiler is missing (apt-get install gcc libc6-dev): zstd is built from source" >&2
  exit 1
fi

mapfile -t packages < <(missing package)
if [[ ${#packages[@]} -gt 0 ]] && may_install; then
  echo "installing ${packages[*]} for the tests"
  install "${packages[@]}" || echo "apt-get failed; going on without" >&2
fi

# The judges of evidence: others' code for DSSE and in-toto, in an environment of their own.
oracles=target/python-oracles
oracle_packages=(securesystemslib==1.6.0 cryptography==50.0.2 in-toto==3.1.0 in-toto-attestation==0.9.3)

has_oracles() {
  "$oracles/bin/python" -c 'import cryptography, in_toto, in_toto_attestation, securesystemslib' 2>/dev/null
}

if [[ ${MUSTER_TEST_INSTALL:-yes} != no ]] && command -v python3 >/dev/null && ! has_oracles; then
  echo "installing ${oracle_packages[*]} into $oracles for the tests"
  { python3 -m venv "$oracles" && "$oracles/bin/pip" install -q "${oracle_packages[@]}"; } ||
    echo "pip failed; going on without" >&2
fi

left=$(missing report)
if ! has_oracles; then
  left+=${left:+$'\n'}"  $oracles (this script, with python3-venv and PyPI): skipped without it: envelopes before in-toto"
fi
if [[ -n $left ]]; then
  printf 'missing for the tests:\n%s\n' "$left" >&2
  if [[ ${MUSTER_TEST_REQUIRE:-} == all ]]; then
    echo "MUSTER_TEST_REQUIRE=all, so this is a failure" >&2
    exit 1
  fi
fi
