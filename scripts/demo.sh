#!/usr/bin/env bash
# A short story on this machine: a folder is backed up twice, a byte of the repository rots, the
# check says what is lost, and the older snapshot restores exactly.
#
# Every command is printed before it runs. All happens in a temporary folder that is removed at
# the end, also after Ctrl-C. MUSTER_BIN names another binary than the one built from here.
set -euo pipefail
source "$(dirname "$0")/toolchain.sh"

root=$PWD
if [[ -z ${MUSTER_BIN:-} ]]; then
  echo "Building muster …"
  cargo build --quiet --package muster
  target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  MUSTER_BIN=$target/debug/muster
fi

story=$(mktemp -d "${TMPDIR:-/tmp}/muster-demo.XXXXXX")
trap 'cd /; rm -rf "$story"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$story"

muster() { "$MUSTER_BIN" "$@"; }

say() { printf '\n# %s\n' "$*"; }

# run COMMAND…: prints and runs it; the demo fails if it does.
run() {
  printf '$ %s\n' "$*"
  "$@"
}

# run_expecting CODE COMMAND…: prints and runs it; the demo fails unless it exits with CODE.
run_expecting() {
  local expected=$1 code=0
  shift
  printf '$ %s\n' "$*"
  "$@" || code=$?
  echo "(exit code $code)"
  if [[ $code != "$expected" ]]; then
    echo "the demo expected exit code $expected" >&2
    exit 1
  fi
}

packs() { find repository/data -type f | sort; }

export MUSTER_REPOSITORY=$story/repository MUSTER_CACHE_DIR=$story/cache
export MUSTER_PASSWORD="correct horse battery staple"

say "A folder of real data: the sources of this project."
mkdir project
cp -a "$root/crates" "$root/Cargo.lock" project/
run du -sh project

say "A repository beside it, and a first backup. (MUSTER_REPOSITORY and MUSTER_PASSWORD are set.)"
run muster repo init
run muster repo backup project
good=$(ls repository/snapshots)
packs >packs-before

say "A copy to compare with later. Then work goes on, and a second backup."
run cp -a project project-at-first-backup
run dd if=/dev/urandom of=project/photo.raw bs=1M count=4 status=none
run mv project/Cargo.lock project/Cargo.lock.old
run muster repo backup project
run muster repo snapshots

say "A byte rots in the middle of a file that only the second backup wrote."
packs >packs-after
# shellcheck disable=SC2046  # the names are hexadecimal
pack=$(ls -S $(comm -13 packs-before packs-after) | head -n 1)
middle=$(($(stat -c %s "$pack") / 2))
byte=$(od -An -tu1 -j "$middle" -N 1 "$pack")
flipped=$(printf '\\%03o' $((byte ^ 1)))
chmod u+w "$pack"
echo "\$ printf '$flipped' | dd of=$pack bs=1 seek=$middle conv=notrunc"
# shellcheck disable=SC2059  # the format is one escaped byte
printf "$flipped" | dd of="$pack" bs=1 seek="$middle" conv=notrunc status=none

say "The check reads everything back, finds it, and says who is affected. Exit code 3: damaged."
run_expecting 3 muster repo check --read-data

say "The first snapshot does not need that file. It restores, elsewhere, and exactly."
run muster repo restore "${good:0:8}" --target restored
run diff -r --no-dereference project-at-first-backup restored/project
echo "no difference"

say "That was all; $story is removed."
