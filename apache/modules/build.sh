#!/usr/bin/env bash
# Build our Apache modules into an environment: apache/modules/build.sh VENV. Needs apxs (apache2-dev) and gcc.
set -eu

venv=$(cd "${1:?the environment}" && pwd)
source=$(cd "$(dirname "$0")" && pwd)
# A copy: apxs leaves files beside the source.
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cp "$source"/mod_*.c "$folder"
mkdir -p "$venv/lib/cask"
for path in "$folder"/mod_*.c; do
    name=$(basename "$path" .c)
    (cd "$folder" && apxs -Wc,-Wall -Wc,-Werror -Wc,-O2 -c "$name.c")
    # By a rename: a server that runs has the old one mapped.
    install -m 0644 "$folder/.libs/$name.so" "$venv/lib/cask/$name.so.new"
    mv "$venv/lib/cask/$name.so.new" "$venv/lib/cask/$name.so"
done
