#!/usr/bin/env bash
#
# scripts/run.sh FILE [ARGS...]
#
# What each npm script starts with: installs the dependencies where they are
# missing or outdated, then becomes (exec) Node 24 running FILE. On Linux x64
# Node 24 comes with the dependencies; elsewhere the system's Node must do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ package-lock.json -nt node_modules/.package-lock.json ]]; then
  npm ci --loglevel=error >&2
fi

node=$PWD/node_modules/.bin/node
if ! "$node" --version >/dev/null 2>&1; then
  node=$(command -v node || true)
  if [[ -z $node ]] || ! "$node" -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 19) ? 0 : 1)'; then
    echo "effect-events needs Node >= 22.19 (found: $("$node" --version 2>/dev/null || echo none)). Install Node 24 from https://nodejs.org; on Linux x64 it comes with 'npm ci'." >&2
    exit 1
  fi
fi

# Tools that are started by their name find this Node, too.
export PATH=$PWD/node_modules/.bin:$PATH
# effect-events-source: `effect-events/...` means src/*.ts, without a build.
exec "$node" --conditions=effect-events-source "$@"
