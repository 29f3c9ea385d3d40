#!/usr/bin/env bash
# usage: assets.sh registry [FOLDER]     docker-registry and skopeo, for the tests
#        assets.sh engine [FOLDER]       dockerd, docker and podman; only root can start them
# From this machine's own Debian archive, with what of their libraries is not here. Downloads and unpacks; installs
# nothing and needs no root. Keeps what is there already.
set -euo pipefail
what=${1:-}
folder=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/mooring-tests/$what}
case $what in
registry) packages=(docker-registry skopeo) last=usr/bin/skopeo ;;
engine) packages=(docker.io podman crun) last=usr/bin/podman ;;
*) sed -n '2,3s/^# //p' "$0" >&2 && exit 2 ;;
esac
[[ -x $folder/$last ]] && exit
{ command -v apt-get && command -v dpkg; } >/dev/null || {
    echo "this needs apt-get and dpkg; elsewhere put on the PATH what ${packages[*]} bring" >&2
    exit 1
}
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
needed=$(apt-get -qq --simulate --no-install-recommends install "${packages[@]}" | awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }')
# shellcheck disable=SC2086  # one word a package
apt-get -qq -o APT::Sandbox::User=root download ${needed:-"${packages[@]}"}
for each in *.deb; do dpkg -x "$each" "$folder"; done
echo "$folder"
