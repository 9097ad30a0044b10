#!/bin/sh
# Makes .venv with everything in uv.lock. Needs git, make and a python3 that has pip or venv; brings uv when it is not
# there. Run by the Makefile when pyproject.toml or uv.lock changed. Arguments go to `uv sync` (--group bench).
set -eu
cd "$(dirname "$0")/.."

find_uv() {
  if command -v uv >/dev/null 2>&1; then
    command -v uv
  elif [ -x .uv/bin/uv ]; then
    echo .uv/bin/uv
  fi
}

if ! command -v python3 >/dev/null 2>&1; then
  echo "penstock needs python3. Bring it with: apt-get install python3 python3-venv (or your system's like)" >&2
  exit 1
fi

uv=$(find_uv)
if [ -z "$uv" ]; then
  echo "uv is not here: putting it into .uv/"
  if python3 -m venv .uv >/dev/null 2>&1; then
    .uv/bin/python -m pip install --quiet --disable-pip-version-check uv
  elif python3 -m pip --version >/dev/null 2>&1; then
    rm -rf .uv
    python3 -m pip install --quiet --disable-pip-version-check --prefix "$PWD/.uv" uv
  else
    echo "this python3 has neither venv nor pip. Bring one with: apt-get install python3-venv" >&2
    exit 1
  fi
  uv=$(find_uv)
  if [ -z "$uv" ]; then
    uv=$(find .uv -name uv -type f -perm -u+x | head -n 1)
  fi
  if [ -z "$uv" ]; then
    echo "uv could not be put into .uv/. Bring it with: python3 -m pip install uv" >&2
    exit 1
  fi
fi

echo "installing what uv.lock names into .venv/"
# Compiled now, so that no first start pays for it (and where bytecode cannot be written later, none ever does).
"$uv" sync --frozen --all-extras --compile-bytecode --quiet "$@"
.venv/bin/python -m compileall -q src
touch .venv/ready
