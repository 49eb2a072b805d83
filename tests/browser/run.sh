#!/usr/bin/env bash
# Runs the tests of this directory in headless Chromium; `make test-browser` calls it. Arguments go to `node --test`.
# Installs Chromium (Debian's, when it is not there; TRADEWIRE_CHROMIUM names another) and from npm what package.json names.
# TRADEWIRE_FREQUI_DIR names the folder of a FreqUI build; without it the tests of FreqUI are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ ! -x .venv/bin/python ] || [ pyproject.toml -nt .venv/.installed ]; then
  make .venv/.installed
fi

export TRADEWIRE_CHROMIUM="${TRADEWIRE_CHROMIUM:-/usr/bin/chromium}"
if [ ! -x "$TRADEWIRE_CHROMIUM" ]; then
  echo "installing chromium (once)" >&2
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get install --yes --no-install-recommends chromium >&2 ||
    { $sudo apt-get update >&2 && $sudo apt-get install --yes --no-install-recommends chromium >&2; }
fi

cd tests/browser
if ! cmp -s package.json node_modules/.installed; then
  echo "setting up tests/browser/node_modules (once; again when package.json changes)" >&2
  npm install --no-package-lock --no-audit --no-fund --silent >&2
  cp package.json node_modules/.installed
fi

if [ "$#" = 0 ]; then set -- *.test.mjs; fi
exec node --test --test-reporter=spec --test-concurrency=1 --test-timeout=600000 "$@"
