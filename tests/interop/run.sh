#!/usr/bin/env bash
# Runs the tests of this directory against real freqtrade; `make test-interop` calls it. Arguments go to pytest.
# Builds .venv-interop by itself, again only when requirements.txt changed; a failed build leaves no stamp.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=.venv-interop
stamp=$venv/.installed
requirements=tests/interop/requirements.txt

if [ ! -x .venv/bin/python ] || [ pyproject.toml -nt .venv/.installed ]; then
  make .venv/.installed
fi

if ! cmp -s "$requirements" "$stamp"; then
  echo "setting up $venv with $(grep -m1 '^freqtrade==' "$requirements") (once; again when $requirements changes)" >&2
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
  cp "$requirements" "$stamp"
fi

# Nothing of a test waits for longer than its own timeout, nothing of a run for longer than the session's.
export TRADEWIRE_INTEROP_PYTHON="$PWD/$venv/bin/python"
exec .venv/bin/python -m pytest tests/interop -o addopts= -ra --strict-markers -p no:randomly -p no:cacheprovider \
  -o session_timeout=1800 --timeout=300 "$@"
