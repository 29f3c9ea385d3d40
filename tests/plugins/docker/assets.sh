#!/usr/bin/env bash
# usage: assets.sh [FOLDER]      the real docker-registry and skopeo, from this machine's own Debian archive, for the tests
# Downloads and unpacks; installs nothing and needs no root. Keeps what is there already.
set -euo pipefail
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/mooring-tests/registry}
[[ -x $folder/usr/bin/docker-registry && -x $folder/usr/bin/skopeo ]] && exit
{ command -v apt-get && command -v dpkg; } >/dev/null || {
    echo "this needs apt-get and dpkg; elsewhere put docker-registry 2.8 and skopeo on the PATH" >&2
    exit 1
}
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download docker-registry skopeo libgpgme11 libassuan0 libdevmapper1.02.1
for each in *.deb; do dpkg -x "$each" "$folder"; done
echo "$folder"
