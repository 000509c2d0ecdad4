#!/bin/sh
# etcd.sh DIR - puts etcd into DIR, for `make bench` to compare with: built from its Go module where there is a
# Go, else Debian's.
set -eu

version=v3.7.0

mkdir -p "$1"
dir=$(cd "$1" && pwd)
if [ -x "$dir/etcd" ]; then exit 0; fi
if command -v go >/dev/null; then
    work=$(mktemp -d "$dir/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # etcd's own go.mod replaces modules, so it can only be a dependency of another one.
    if (cd "$work" && go mod init bench && go get "go.etcd.io/etcd/server/v3@$version" &&
        CGO_ENABLED=0 GOFLAGS=-mod=mod go build -o etcd go.etcd.io/etcd/server/v3) >"$work/log" 2>&1; then
        mv "$work/etcd" "$dir/etcd"
        exit 0
    fi
    echo "etcd.sh: Go could not build etcd $version, Debian's is taken instead: $(tail -1 "$work/log")" >&2
fi
sh "$(dirname "$0")/../install/needs.sh" bench
ln -sf "$(command -v etcd)" "$dir/etcd"
