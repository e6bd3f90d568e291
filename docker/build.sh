#!/bin/sh
# Builds the image: the project's wheel, the pinned packages as wheels for the image's Python, then `docker build`.
# Inside the build only apt needs the network, so that the image also builds behind a proxy with its own certificates.
# Usage: docker/build.sh PYTHON [IMAGE]. PYTHON needs pip and the setuptools that requirements-dev.txt pins.
set -eu
python=$1
image=${2:-nfs-provisioner:dev}
# The Python of Debian trixie; requirements.txt is valid for every version.
series=3.13
machine=$(uname -m)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
# Without the wheels afterwards, a plain `docker build .` never takes those of older code.
trap 'rm -rf "$work" dist/image' EXIT
echo "building the wheels of $image"
rm -rf dist/image
mkdir -p dist/image/packages
# Build from a copy: setuptools would leave its build directory in the checkout and reuse deleted files from it.
cp -r provisioner pyproject.toml README.md LICENSE "$work"
# The same code gives the same wheel at any time, so that Docker can use its cache.
SOURCE_DATE_EPOCH=$(date --date=2000-01-01T00:00Z +%s)
export SOURCE_DATE_EPOCH
"$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist/image "$work"
"$python" -m pip download --quiet --no-deps --dest dist/image/packages --require-hashes -r requirements.txt --only-binary :all: \
  --implementation cp --python-version $series --abi "cp$(echo $series | tr -d .)" --abi abi3 --abi none \
  --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine"
base=debian:trixie-slim
if ! docker image inspect $base >/dev/null 2>&1; then
  echo "pulling $base"
  timeout 120 docker pull --quiet $base || docker/base-image.sh
fi
echo "building $image"
docker build --quiet --tag "$image" \
  --build-arg "VERSION=$("$python" -c 'import provisioner; print(provisioner.__version__)')" \
  --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" .
