#!/usr/bin/env bash
# Make one signed file of a folder: pack.sh FOLDER KEY FILE. install.sh in this folder verifies and unpacks it.
# The file is a tar, and behind its end TRAILER_BYTES with the signature of all bytes before. tar reads no further than its end.
set -eu -o pipefail

TRAILER_BYTES=4096                          # install.sh knows the same number
fail() { printf 'FAIL: %s\nNext: %s\n' "$1" "$2" >&2; exit 2; }

folder="$(realpath "$1")" key="$(realpath "$2")" file="$3"
odd="$(find "$folder" -mindepth 1 \( ! -type f ! -type d -o -name $'*\n*' -o -name '*\\*' \) -print -quit)"
[ -z "$odd" ] || fail "needs files and folders only, without newline or backslash in their names, found $odd." "take it away, then again"

(cd "$folder" && rm -f SHA256SUMS && find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum >"$folder.sums" &&
    mv "$folder.sums" SHA256SUMS)
chmod -R u=rwX,go=rX "$folder"
rm -f "$file" "$file.sig"
# The same folder gives the same bytes.
tar --create --file "$file" --format gnu --sort name --owner 0 --group 0 --numeric-owner \
    --mtime "@${SOURCE_DATE_EPOCH:-0}" -C "${folder%/*}" "${folder##*/}"
ssh-keygen -q -Y sign -f "$key" -n cask-bundle "$file" 2>/dev/null ||
    fail "needs ssh-keygen to sign with $key; it did not." "make bundle-key makes one; ssh-keygen is in openssh-client, from 8.1"
{ printf 'cask-bundle 1\n'; cat "$file.sig"; printf "%${TRAILER_BYTES}s" '' | tr ' ' '\n'; } | head -c "$TRAILER_BYTES" >"$file.trailer" || true
[ "$(wc -c <"$file.trailer")" -eq "$TRAILER_BYTES" ] && grep -q 'END SSH SIGNATURE' "$file.trailer" ||
    fail "needs a signature of less than $TRAILER_BYTES bytes, found a longer one." "take a key of another kind: make bundle-key"
cat "$file.trailer" >>"$file"
rm "$file.sig" "$file.trailer"
