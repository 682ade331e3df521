#!/bin/sh
# Writes the locks anew from pyproject.toml; needs uv (https://docs.astral.sh/uv/). Say --upgrade for newer versions.
#
#   runtime.txt   what a production install holds, a worker's with it, and nothing else
#   local.txt     the above, the embedded parts, and the tools that install a checkout: for `run.py dev`
#   dev.txt       the above, and what the checks and tests need: for `run.py test`
#   build.txt     what builds the wheel, Node for its bundles with it: for the Dockerfile
#
# One file each for every Python and platform that pyproject.toml names; the smaller ones repeat the versions of dev.txt.
set -eu
cd "$(dirname "$0")/.."

lock() {
    output="$1"
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-config --custom-compile-command requirements/compile.sh \
        --output-file "requirements/$output" "$@" >/dev/null
}

lock dev.txt pyproject.toml requirements/tools.in --extra local --extra worker --group dev "$@"
lock local.txt pyproject.toml requirements/tools.in --extra local --constraint requirements/dev.txt "$@"
lock runtime.txt pyproject.toml --extra worker --constraint requirements/dev.txt "$@"
lock build.txt requirements/tools.in requirements/bundles.in --constraint requirements/dev.txt "$@"
