#!/bin/sh
# install.sh LOCK [UV-OPTIONS…]: install a hashed lock file into /opt/venv, which is made on the first call.
# uv comes and goes within the call, so it stays in no layer. Bytecode is compiled here: a container's file system
# is fresh, and every start would compile it again.
set -eu
lock=$1
shift
uv=$(mktemp -d)
trap 'rm -rf "$uv"' EXIT
export TMPDIR="$uv" # uv's locks and builds too
# `make images` mounts its download cache at /mnt; a plain `docker build` has none and leaves none behind.
if mountpoint -q /mnt; then cache=/mnt; else cache=$uv/cache; fi
export UV_CACHE_DIR="$cache" PIP_CACHE_DIR="$cache/pip"
python3 -m venv "$uv"
# --cert, --system-certs: trust what the base image trusts, as apt does.
"$uv/bin/pip" install -q --disable-pip-version-check --cert /etc/ssl/certs/ca-certificates.crt \
  --require-hashes -r /opt/build/image-build.txt
[ -d /opt/venv ] || "$uv/bin/uv" venv -q --python "$(command -v python3)" /opt/venv
# Every lock is complete, so nothing is resolved here.
PATH=/opt/venv/bin:$PATH "$uv/bin/uv" --system-certs pip install -q --python /opt/venv/bin/python --link-mode copy \
  --compile-bytecode --require-hashes --no-deps "$@" -r "$lock"
# What every image shares: our code is found beside the environment, in a layer of its own.
echo /opt/pinnace > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/pinnace.pth"
