#!/usr/bin/env bash
# Builds the documentation (strictly: a broken link or an unknown name stops it) into work_dirs/site, or serves it.
set -euo pipefail
case ${1:-} in
  build | serve) ;;
  *) echo "usage: bash tools/docs.sh build|serve" >&2 && exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/install.sh
python -c 'import jupytext, zensical, mkdocstrings_handlers.python' 2>/dev/null ||
  python -m pip install --quiet -c constraints.txt jupytext zensical mkdocstrings-python
jupytext --quiet --to ipynb docs/tutorials/*.py # to download
jupytext --quiet --to md:markdown --opt notebook_metadata_filter=-all --opt cell_metadata_filter=-all docs/tutorials/*.py
for page in docs/tutorials/*.md; do
  name=$(basename "$page" .md)
  printf '\nThis page as [notebook](%s.ipynb) and as [Python](%s.py).\n' "$name" "$name" >>"$page"
done
if [ "$1" = serve ]; then exec zensical serve -f mkdocs.yml; fi
zensical build --clean --strict -f mkdocs.yml
