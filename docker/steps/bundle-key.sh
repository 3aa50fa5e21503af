#!/usr/bin/env bash
# Make the key that bundles are signed with, once: `make bundle-key`. Its public half goes to the sites, another way than bundles.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

BUNDLE_KEY="${BUNDLE_KEY:-$SECRETS_DIR/bundle_key}"

command -v ssh-keygen >/dev/null || fail 2 "needs ssh-keygen, found none." "apt-get install openssh-client"
if [ -s "$BUNDLE_KEY" ]; then
    say key "$BUNDLE_KEY is there"
    [ -s "$BUNDLE_KEY.pub" ] || ssh-keygen -y -f "$BUNDLE_KEY" >"$BUNDLE_KEY.pub"
else
    mkdir -p "${BUNDLE_KEY%/*}"
    chmod 0700 "${BUNDLE_KEY%/*}"
    ssh-keygen -q -t ed25519 -N '' -C cask-bundle -f "$BUNDLE_KEY"
    say key "made $BUNDLE_KEY: whoever has it can make bundles that your sites take. Keep a copy with your backups"
fi
say public "$BUNDLE_KEY.pub, $(ssh-keygen -lf "$BUNDLE_KEY.pub" | cut -d ' ' -f 2): give it to the sites, another way than the bundles"
