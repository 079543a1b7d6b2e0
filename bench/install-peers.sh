#!/bin/sh
# Brings peers that are on no PATH yet into a folder, one executable for each:
#
#     bench/install-peers.sh DIR rustic restic@0.18
#
# rustic is built from crates.io (about ten minutes). restic 0.18 is taken out of Debian 13's
# package, whose static binary runs on Debian 12 too; apt checks its signature as ever.
set -eu

dir=$1
shift
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

install_rustic() {
    cargo install rustic-rs --version 0.11.4 --locked --root "$dir/rustic-rs"
    ln -sf "$dir/rustic-rs/bin/rustic" "$dir/rustic"
}

install_newer_restic() {
    apt=$dir/debian-13
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    cat >"$apt/parts/debian.sources" <<END
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-trixie-automatic.gpg
END
    set -- -q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" \
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root
    apt-get "$@" update
    (cd "$apt" && apt-get "$@" download restic && dpkg-deb -x restic_*.deb files)
    ln -sf "$apt/files/usr/bin/restic" "$dir/restic@0.18"
}

for peer in "$@"; do
    [ -x "$dir/$peer" ] && continue
    case $peer in
    rustic) install_rustic ;;
    restic@0.18) install_newer_restic ;;
    *)
        echo "install-peers: no way to get '$peer'; there are rustic and restic@0.18" >&2
        exit 2
        ;;
    esac
done
