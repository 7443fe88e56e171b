#!/bin/sh
# Make the virtual environment $1 of what the lock files $2... name: each file by its hash, and nothing but those files.
# The few packages that come as source are built by what docker/locks/build.txt installed beside pip.
set -eu
prefix=$1
shift
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
for lock in "$@"; do
    python -m pip wheel --quiet --require-hashes --no-deps --no-build-isolation --wheel-dir "$wheels" --requirement "$lock"
done
python -m venv --without-pip "$prefix"
python -m pip --python "$prefix" install --quiet --no-deps --no-index "$wheels"/*.whl
