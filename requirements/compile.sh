#!/bin/sh
# Resolve the lock files: base.lock for using chirpwatch, live.lock for using it on live
# strain as well, docs.lock for building the documentation's site, dev.lock for developing
# it (training and checks included). dev.lock is resolved first, so that the others can
# take its versions and share one environment. For Linux on x86_64, where the embedded
# Triton runs.
set -eu
uv=$1
options="--python-version 3.11 --python-platform x86_64-manylinux_2_35 --generate-hashes --no-emit-index-url --no-annotate --quiet --upgrade --custom-compile-command"
$uv pip compile $options "make lock" ../pyproject.toml build.in --extra dev --extra train --extra live -o dev.lock
$uv pip compile $options "make lock" ../pyproject.toml build.in -c dev.lock -o base.lock
$uv pip compile $options "make lock" ../pyproject.toml build.in --extra live -c dev.lock -o live.lock
$uv pip compile $options "make lock" ../pyproject.toml build.in --extra docs -c dev.lock -o docs.lock
