#!/usr/bin/env bash
# usage: kube_assets.sh [FOLDER]
# Puts kube-apiserver and etcd, the servers that tests/plugins/kubernetes runs against, into FOLDER; by default where the
# tests look for them if KUBEBUILDER_ASSETS does not say. What is there stays. Prints the folder.
#   MOORING_KUBE_CACHE  a folder with kube-apiserver (or kube-apiserver*.xz) and perhaps etcd, to take instead of building
#   DEBIAN_MIRROR       an archive of Debian's; by default the one that apt uses
# Without a cache, kube-apiserver 1.20 is built from Debian's source package, with Debian's Go: some ten minutes, 3 GB.
# Needs apt-get, dpkg and tar, on Linux; nothing is installed.
set -euo pipefail
folder=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/mooring/kubebuilder}")
mkdir -p "$folder"
exec 9>"$folder/.lock"
flock 9
work=$(mktemp -d "$folder/.work.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

put() { # FILE NAME: as a whole or not at all, for somebody may be looking
    chmod 755 "$1"
    mv -f "$1" "$folder/$2"
}

cached() { # NAME: from the cache, if it is there
    local file
    for file in "${MOORING_KUBE_CACHE:-/nonexistent}/$1" "${MOORING_KUBE_CACHE:-/nonexistent}/$1"*.xz; do
        [[ -f $file ]] || continue
        if [[ $file == *.xz ]]; then xz -dc "$file" >"$work/$1"; else cp -L "$file" "$work/$1"; fi
        put "$work/$1" "$1"
        return 0
    done
    return 1
}

debian() { # apt-get, with bookworm's archive alone and in a folder of its own
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed=""
    if [[ ! -f $work/apt/sources.list ]]; then
        mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,parts}
        # shellcheck disable=SC2016  # these are apt's own variables
        mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)' 'Created-By: Packages' |
            awk '$2 == "Debian" && $3 == "Debian" && $4 == "main" && !seen++ { print $1 }')}
        [[ $mirror ]] || { echo "apt knows no Debian archive: run apt-get update, or set DEBIAN_MIRROR" >&2; exit 1; }
        [[ ! -r $keyring ]] || signed="[signed-by=$keyring] "
        printf '%s\n' "deb $signed$mirror bookworm main" "deb-src $signed$mirror bookworm main" >"$work/apt/sources.list"
        debian update
    fi
    apt-get -qq -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts="$work/apt/parts" \
        -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none "$@" >&2
}

build() {
    local root=$work/build source package version=v1.20.2
    mkdir -p "$root"/{get,go,path/src/k8s.io}
    cd "$root/get"
    debian download golang-1.19-go golang-1.19-src
    debian source --download-only kubernetes
    for package in golang-1.19-*.deb; do dpkg -x "$package" "$root/go"; done
    source=$(ls kubernetes_*.orig.tar.gz)
    tar xf "$source" -C "$root/path/src/k8s.io"
    mv "$root"/path/src/k8s.io/kubernetes-* "$root/path/src/k8s.io/kubernetes"
    cd "$root/path/src/k8s.io/kubernetes"
    export GOROOT=$root/go/usr/lib/go-1.19 GOPATH=$root/path GOCACHE=$root/cache GO111MODULE=off GOFLAGS="" GOPROXY=off CGO_ENABLED=0
    local go=$GOROOT/bin/go
    # the archive lacks pkg/generated/openapi, which upstream's Makefile generates
    "$go" build -o "$root/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    local inputs
    inputs=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd staging/src/k8s.io |
        grep -vE 'code-generator|sample-apiserver|/testdata/|_test.go|/_examples/|pkg/generated' | xargs -n1 dirname | sort -u |
        sed 's#^staging/src/#k8s.io/kubernetes/vendor/#; t; s#^#k8s.io/kubernetes/#' | paste -sd,)
    PATH=$GOROOT/bin:$PATH "$root/openapi-gen" --logtostderr -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi \
        -O zz_generated.openapi -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$root/violations" 2>"$root/openapi-gen.log"
    local flags="-s -w" in
    for in in component-base client-go/pkg; do
        in=k8s.io/kubernetes/vendor/k8s.io/$in/version
        flags+=" -X $in.gitVersion=$version -X $in.gitMajor=1 -X $in.gitMinor=20 -X $in.gitTreeState=clean"
    done
    "$go" build -trimpath -ldflags "$flags" -o "$root/kube-apiserver" ./cmd/kube-apiserver >&2
    put "$root/kube-apiserver" kube-apiserver
}

if [[ ! -x $folder/etcd ]] && ! cached etcd; then
    mkdir -p "$work/etcd" && cd "$work/etcd"
    debian download etcd-server
    dpkg -x etcd-server_*.deb .
    put usr/bin/etcd etcd
fi
[[ -x $folder/kube-apiserver ]] || cached kube-apiserver || build
echo "$folder"
