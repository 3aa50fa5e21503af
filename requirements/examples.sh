#!/usr/bin/env bash
# Make the environment of the example application in build/examples: a Flask of its own, as its people would have it.
# Ends at once when nothing changed. Without a network it takes the wheels that `make wheels` collected.
set -eu
cd "$(dirname "$0")/.."
# The service user must be able to read it.
umask 022

lock=examples/applications/ledger/requirements.txt
folder=build/examples/ledger
if sha256sum --status --check "$folder/.installed" 2>/dev/null; then exit 0; fi
options=()
if [ -e build/wheels/.complete-dev ]; then options=(--find-links build/wheels --find-links build/wheels/dev); fi
# The interpreter below .venv: a Python of a home folder is closed to the service user.
"$(readlink -f .venv/bin/python)" -m venv --clear "$folder"
"$folder/bin/python" -m pip --disable-pip-version-check install --quiet --progress-bar off --require-hashes \
    "${options[@]}" -r "$lock"
sha256sum "$lock" >"$folder/.installed"
