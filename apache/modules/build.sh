#!/usr/bin/env bash
# Build our Apache module into an environment: apache/modules/build.sh VENV. Needs apxs (apache2-dev) and gcc.
set -eu

venv=$(cd "${1:?the environment}" && pwd)
source=$(cd "$(dirname "$0")" && pwd)/mod_arrivals.c
# A copy: apxs leaves files beside the source.
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cp "$source" "$folder"
(cd "$folder" && apxs -Wc,-Wall -Wc,-Werror -Wc,-O2 -c mod_arrivals.c)
mkdir -p "$venv/lib/cask"
# By a rename: a server that runs has the old one mapped.
install -m 0644 "$folder/.libs/mod_arrivals.so" "$venv/lib/cask/mod_arrivals.so.new"
mv "$venv/lib/cask/mod_arrivals.so.new" "$venv/lib/cask/mod_arrivals.so"
