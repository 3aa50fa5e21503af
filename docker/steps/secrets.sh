#!/usr/bin/env bash
# Make a secret that a container reads from /run/secrets, once; say where it lies: secrets.sh [secret_key | grafana_password]
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

FILE="$SECRETS_DIR/${1:-secret_key}"

if [ -s "$FILE" ]; then
    say secret "$FILE is there"
    exit 0
fi
# The container gets a copy of its own (release.sh). Grafana's user gets the file itself, so that others may read that one,
# and the folder keeps other users of this machine out.
mkdir -p "$SECRETS_DIR"
chmod 0700 "$SECRETS_DIR"
umask 077
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$FILE.new"
[ "$(wc -c <"$FILE.new")" -eq 64 ] || fail 1 "needs 32 random bytes, found fewer." "look at /dev/urandom."
if [ "${1:-}" = grafana_password ]; then chmod 0444 "$FILE.new"; fi
mv "$FILE.new" "$FILE"
say secret "made $FILE, for this machine only and not in git: keep a copy with your backups"
