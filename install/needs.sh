#!/bin/sh
# needs.sh GROUP... - what a group of Make targets needs of the system: installed by apt-get where we are
# root, else named in one line to run. Rust is never installed, only asked for.
#   build  to compile     run  to run pods     e2e  to run the end-to-end tests     bench  to compare with
set -eu

rust_major=1 rust_minor=95

packages_of() {
    case $1 in
        # A C compiler and make for aws-lc and jemalloc; protoc for Raft's messages.
        build) echo gcc libc6-dev make protobuf-compiler ;;
        # The container runtime and what it and pods' networks are made with.
        run) echo containerd runc containernetworking-plugins iptables nftables iproute2 ;;
        # kubectl comes as a Python package; a file system that forgets is mounted through FUSE; images are
        # made of busybox.
        e2e) echo python3 python3-pip ca-certificates fuse3 busybox-static util-linux mount e2fsprogs; packages_of run ;;
        bench) echo etcd-server ;;
        *) echo "needs.sh: no group $1" >&2; exit 2 ;;
    esac
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] && return
    # On a machine whose tools came another way, the tool is what counts.
    case $1 in
        gcc | make | python3) command -v "$1" ;;
        protobuf-compiler) command -v protoc ;;
        python3-pip) python3 -m pip --version ;;
        fuse3) command -v fusermount3 ;;
        containerd | runc | iptables) command -v "$1" ;;
        etcd-server) command -v etcd ;;
        nftables) command -v nft ;;
        iproute2) command -v ip ;;
        util-linux) command -v setpriv ;;
        mount) command -v mount ;;
        e2fsprogs) command -v mkfs.ext4 ;;
        containernetworking-plugins) [ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] ;;
        busybox-static) ldd "$(command -v busybox)" 2>&1 | grep -q 'not a dynamic' ;;
        *) false ;;
    esac >/dev/null 2>&1
}

missing=
for group in "$@"; do
    for package in $(packages_of "$group"); do
        installed "$package" || missing="$missing $package"
    done
done
if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "beemesh needs, by the names Debian gives them:$missing" >&2
        exit 1
    elif [ "$(id -u)" != 0 ]; then
        echo "Missing packages. Run this, then the same make again:" >&2
        echo "  sudo apt-get install --yes --no-install-recommends$missing" >&2
        exit 1
    fi
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet=2
    # shellcheck disable=SC2086 # one word a package
    apt-get install --quiet=2 --yes --no-install-recommends $missing
fi

how='Get it with rustup (https://rustup.rs): rustup toolchain install stable --component clippy,rustfmt'
if ! version=$(rustc --version 2>/dev/null); then
    echo "Rust $rust_major.$rust_minor or newer is needed and there is no rustc in PATH. $how" >&2
    exit 1
fi
number=${version#rustc } major=${number%%.*} rest=${number#*.} minor=${rest%%.*}
if [ "$major" -lt $rust_major ] || { [ "$major" -eq $rust_major ] && [ "$minor" -lt $rust_minor ]; }; then
    echo "Rust $rust_major.$rust_minor or newer is needed and this is $version. $how" >&2
    exit 1
fi
for tool in cargo cargo-clippy cargo-fmt; do
    command -v $tool >/dev/null || { echo "$tool is missing beside rustc. $how" >&2; exit 1; }
done
