# Sourced by the other scripts: goes to the root and sees to it that `cargo` is the pinned one.
#
# rustup refuses to run a toolchain it does not have by the pinned name, even when the same
# version is installed as `stable`. So that a machine without network can still build, the
# installed toolchain of the same version is used; only without one is it downloaded.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

rust_pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)

# rust_is_pinned [TOOLCHAIN]: whether the toolchain, or the active one, has the pinned version.
rust_is_pinned() {
  local version
  if [[ $# -gt 0 ]]; then
    version=$(rustup run "$1" rustc --version 2>/dev/null) || return 1
  else
    version=$(RUSTUP_AUTO_INSTALL=0 rustc --version 2>/dev/null) || return 1
  fi
  [[ $version == "rustc $rust_pinned "* ]]
}

choose_toolchain() {
  if ! command -v cargo >/dev/null; then
    echo "Rust is missing: https://rustup.rs installs it (this project pins $rust_pinned)" >&2
    return 1
  fi
  if [[ -n ${RUSTUP_TOOLCHAIN:-} ]] || rust_is_pinned; then
    return 0
  fi
  if ! command -v rustup >/dev/null; then
    echo "note: this project pins Rust $rust_pinned, and here is $(rustc --version)" >&2
    return 0
  fi
  local toolchain
  for toolchain in $(rustup toolchain list 2>/dev/null | cut -d' ' -f1); do
    if rust_is_pinned "$toolchain"; then
      export RUSTUP_TOOLCHAIN=$toolchain
      return 0
    fi
  done
  rustup toolchain install "$rust_pinned" --profile minimal --component rustfmt --component clippy
}

choose_toolchain
