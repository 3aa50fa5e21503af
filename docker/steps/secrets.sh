#!/usr/bin/env bash
# Make the secrets that are missing, and say which: `make secrets`. Those that are there stay as they are.
#
#   secrets.sh                    secret_key; jobs_webhook_secret where JOBS_WEBHOOK_HOSTS names somebody
#   secrets.sh NAME               this one alone, such as grafana_password
#   SERVICE_USER=www-data …       give them to this user, for `make serve` started as root
#   ROTATE=1 | 2 | 3 …            a step of changing SECRET_KEY (docs/administration.md): after each the service reads them anew
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

choose_environment
umask 077
mkdir -p "$SECRETS_DIR"
chmod 0700 "$SECRETS_DIR"
key="$SECRETS_DIR/secret_key" fallback="$SECRETS_DIR/secret_key_fallback"

give() { if [ -n "${SERVICE_USER:-}" ]; then chown "$SERVICE_USER" "$SECRETS_DIR" "$1"; fi; }

write() { # write FILE : 256 random bits, under its name once it is whole
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$1.new"
    [ "$(wc -c <"$1.new")" -eq 64 ] || fail 1 "needs 32 random bytes, found fewer." "look at /dev/urandom."
    # The container gets a copy of its own (release.sh). Grafana's user gets the file itself, so that others may read that
    # one, and the folder keeps other users of this machine out.
    if [ "${1##*/}" = grafana_password ]; then chmod 0444 "$1.new"; fi
    give "$1.new"
    mv "$1.new" "$1"
}

need() { # need NAME
    if [ -s "$SECRETS_DIR/$1" ]; then
        if [ -O "$SECRETS_DIR/$1" ] && [ "$1" != grafana_password ]; then chmod go-rwx "$SECRETS_DIR/$1"; fi
        say secret "$SECRETS_DIR/$1 is there"
    else
        write "$SECRETS_DIR/$1"
        say secret "made $SECRETS_DIR/$1, for this machine only and not in git: keep a copy with your backups"
    fi
}

rotate() { # rotate STEP
    [ -s "$key" ] || fail 2 "needs $key, found none to change." "make secrets"
    case "$1" in
        1)
            [ ! -s "$fallback" ] || fail 2 "needs no $fallback yet, found one: a change is under way." "make secrets ROTATE=2, or 3 when that was done"
            write "$fallback"
            say secret "made $fallback: a new key, which is taken and does not sign yet"
            ;;
        2)
            [ -s "$fallback" ] || fail 2 "needs $fallback, found none." "make secrets ROTATE=1"
            ln "$key" "$key.old"
            mv "$fallback" "$key"
            mv "$key.old" "$fallback"
            say secret "$key is the new key; the old one, $fallback, is still taken"
            ;;
        3)
            [ -s "$fallback" ] || fail 2 "needs $fallback, found none." "make secrets ROTATE=1"
            rm "$fallback"
            say secret "removed $fallback: what the old key has signed is worth nothing"
            ;;
        *) fail 2 "needs ROTATE to be 1, 2 or 3, found «$1»." "make secrets ROTATE=1" ;;
    esac
    echo "Next: make reload ENV=$ENV (in a container make up ENV=$ENV), on every machine that has this key"
}

if [ -n "${ROTATE:-}" ]; then
    rotate "$ROTATE"
elif [ -n "${1:-}" ]; then
    need "$1"
else
    need secret_key
    if [ -n "$(setting JOBS_WEBHOOK_HOSTS)" ]; then need jobs_webhook_secret; fi
fi
