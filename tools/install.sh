#!/usr/bin/env bash
# Installs this project and its tested dependencies into .venv, if that was not done yet.
# Usage: bash tools/install.sh [--onedl] [PYTHON]
#   --onedl   the maintained fork of the mm packages, into .venv-onedl; so does MST_TRANSFER_MM=onedl where this is sourced
#   PYTHON    the interpreter for a new environment (default: python3)
# Other scripts source it: then the environment is also active afterwards.
set -euo pipefail

mst_install() {
  local root python venv stamp want there=no
  [ "${1:-}" != --onedl ] || { export MST_TRANSFER_MM=onedl && shift; } # setup.py reads it
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  python=${1:-${PYTHON:-python3}}
  venv="$root/.venv"
  [ "${MST_TRANSFER_MM:-}" != onedl ] || venv="$root/.venv-onedl"
  stamp="$venv/.installed"
  if [ ! -x "$venv/bin/python" ]; then
    if ! command -v "$python" >/dev/null; then
      echo "install: no '$python' found. Install Python 3.10 to 3.13, or name it: bash tools/install.sh /path/to/python" >&2
      return 1
    fi
    if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))'; then
      echo "install: $("$python" --version) is not supported; Python 3.10 to 3.13 is." \
        "Name another: bash tools/install.sh /path/to/python" >&2
      return 1
    fi
    [ ! -e "$venv" ] || there=yes
    if ! "$python" -m venv "$venv"; then
      [ "$there" = yes ] || rm -rf "$venv"
      echo "install: '$python -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv python3-dev" >&2
      return 1
    fi
  fi
  want=$(cat "$root/setup.py" "$root/mst_transfer/compat/mm_lines.py" "$root/pyproject.toml" "$root/constraints.txt" | cksum)
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want $root" ]; then
    echo "install: installing into $venv (the first time downloads a few GB)"
    if ! "$venv/bin/python" -m pip install --quiet -c "$root/constraints.txt" -e "$root[dev]" ||
      { [ "$venv" != "$root/.venv" ] && # mmcv-lite requires OpenMMLab's mmengine, which would overwrite the fork's
        ! "$venv/bin/python" -m pip install --quiet --no-deps -c "$root/constraints.txt" mmcv-lite; }; then
      echo "install: pip failed; its message stands above. Nothing is half done: run this again when it is mended." >&2
      return 1
    fi
    # opencv-python needs libGL, which a machine without a desktop often lacks; its twin without windows does not.
    if ! "$venv/bin/python" -c 'import cv2' 2>/dev/null; then
      echo "install: opencv-python cannot be imported here (no libGL?): taking opencv-python-headless instead" >&2
      "$venv/bin/python" -m pip uninstall --quiet -y opencv-python opencv-python-headless
      "$venv/bin/python" -m pip install --quiet -c "$root/constraints.txt" opencv-python-headless
    fi
    echo "$want $root" >"$stamp"
  fi
  # shellcheck disable=SC1091
  source "$venv/bin/activate"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  mst_install "$@"
else
  mst_install
fi
