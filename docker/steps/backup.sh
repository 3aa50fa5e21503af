#!/usr/bin/env bash
# `make backup`, `make backup-check` and `make restore`: of the container where this project has one, else of the service
# without one. WHERE=here chooses the latter, WHERE=container the former: a machine that is still empty has none yet.
#
#   backup.sh create [FILE] [OPTION]…      backup.sh check FILE [OPTION]…      backup.sh restore FILE [OPTION]…
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

VERB="${1:-}"
case "$VERB" in create | check | restore) shift ;; *) fail 2 "needs create, check or restore, found «$VERB»." "make backup, make backup-check FILE=…, make restore FILE=…" ;; esac
FILE=""
case "${1:-}" in '' | --*) ;; *) FILE="$1"; shift ;; esac
PASSPHRASE="" OPTIONS=()
while [ $# -gt 0 ]; do
    case "$1" in
        --passphrase-file) PASSPHRASE="${2:?the file of the passphrase}"; shift ;;
        --passphrase-file=*) PASSPHRASE="${1#*=}" ;;
        *) OPTIONS+=("$1") ;;
    esac
    shift
done

is_of_container() { # whether the state of this project is a container's
    case "${WHERE:-}" in
        here) return 1 ;;
        container) need_engine; return 0 ;;
        '') ;;
        *) fail 2 "needs WHERE to be here or container, found «$WHERE»." "make backup WHERE=container" ;;
    esac
    (choose_docker; [ -n "$DOCKER" ] && "$DOCKER" volume inspect "${PROJECT}_state" >/dev/null 2>&1) || return 1
    choose_docker
}

if ! is_of_container; then
    requirements/install.sh serve >&2
    [ -z "$PASSPHRASE" ] || OPTIONS+=(--passphrase-file "$PASSPHRASE")
    exec .venv/bin/python -m app.cli backup "$VERB" ${FILE:+"$FILE"} ${OPTIONS[@]+"${OPTIONS[@]}"}
fi

choose_environment
need_file() { [ -r "$FILE" ] || fail 2 "needs FILE to be a backup, found «$FILE»." "make $1 FILE=backups/…"; }
[ -z "$PASSPHRASE" ] || [ -r "$PASSPHRASE" ] || fail 2 "needs to read $PASSPHRASE." "give the file of the passphrase"

need_image() {
    "$DOCKER" image inspect "$IMAGE" >/dev/null 2>&1 ||
        fail 2 "needs the image $IMAGE, found none." "docker load -i that-image.tar, or: make image; or CASK_IMAGE=…"
}

# A container of its own, of the image that is started next, without network; by root, as it reads files of this machine's owner.
throw_away() { # throw_away DOCKER-OPTION… -- ARGUMENT…
    local docker=()
    while [ "$1" != -- ]; do docker+=("$1"); shift; done
    shift
    if [ -n "$PASSPHRASE" ]; then
        docker+=(--volume "$(realpath "$PASSPHRASE"):/run/passphrase:ro")
        set -- "$@" --passphrase-file /run/passphrase
    fi
    "$DOCKER" run --rm --interactive --network none --env "ENV=$ENV" "${docker[@]}" --entrypoint python "$IMAGE" \
        -m app.cli backup "$@"
}

# A site of install.sh has its local.env outside its releases, behind a link that leads nowhere in a container.
share_settings() { # sets settings: a folder without links
    settings="$(mktemp -d)"
    trap 'rm -rf "$settings"' EXIT
    cp -L "$ENV_DIR"/*.env "$settings/"
}
take_settings() { # back to where the link leads, what was there before beside it
    local site kept
    site="$(realpath "$ENV_DIR/local.env")"
    for kept in "$settings"/.before-restore-*; do
        if [ -d "$kept" ]; then cp -R "$kept" "${site%/*}/"; fi
    done
    if [ -f "$settings/local.env" ]; then
        cp "$settings/local.env" "$site.new"
        mv "$site.new" "$site"
    fi
}

case "$VERB" in
    create)
        need_container
        is_running "$CONTAINER" ||
            fail 2 "needs the container to run, found it stopped." "make up ENV=$ENV"
        FILE="${FILE:-backups/cask-$(date -u +%Y%m%dT%H%M%SZ).tar}"
        if [ "$FILE" = - ]; then to=/dev/stdout; else
            [ ! -e "$FILE" ] || fail 2 "needs FILE to be new, found $FILE." "make backup FILE=another.tar"
            mkdir -p "$(dirname "$FILE")"
            to="$FILE.unfinished"
            # For its owner alone; it holds secrets.
            umask 077
            trap 'rm -f "$to"' EXIT
        fi
        given=(create - ${OPTIONS[@]+"${OPTIONS[@]}"}) from=/dev/null
        if [ -n "$PASSPHRASE" ]; then given+=(--passphrase-file -) from="$PASSPHRASE"; fi
        "$DOCKER" exec --interactive "$CONTAINER" python -m app.cli backup "${given[@]}" <"$from" >"$to" ||
            fail 1 "needs a whole backup in $FILE, found that it could not be made or written (above); nothing is left of it." \
                "$(df -Ph "$(dirname "$FILE")" | awk 'NR == 2 {print $4 " are free in " $6}'); mend what is named, then again"
        if [ "$FILE" != - ]; then
            mv "$to" "$FILE"
            say backup "$FILE"
            echo "Next: make backup-check FILE=$FILE"
        fi
        ;;
    check)
        [ -z "$PASSPHRASE" ] || need_own_engine backup-check
        need_file backup-check
        need_image
        throw_away --tmpfs /tmp:mode=1777 -- check - ${OPTIONS[@]+"${OPTIONS[@]}"} <"$FILE"
        ;;
    restore)
        need_own_engine restore
        need_file restore
        id="$(container)"
        if is_running "$id"; then
            fail 2 "needs the container to be stopped: it would write into what is put back." "make down ENV=$ENV, then restore again"
        fi
        [ -n "$id" ] || need_image
        mkdir -p "$SECRETS_DIR"
        # As Compose would name it, where nothing was started here yet.
        "$DOCKER" volume create --label "com.docker.compose.project=$PROJECT" --label com.docker.compose.volume=state \
            "${PROJECT}_state" >/dev/null
        [[ " ${OPTIONS[*]-} " = *" --only"* ]] || OPTIONS+=(--only state --only settings --only secrets)
        settings="$(realpath "$ENV_DIR")"
        if [ -L "$ENV_DIR/local.env" ]; then share_settings; fi
        throw_away --user 0:0 --volume "${PROJECT}_state:/var/lib/cask" --volume "$settings:/app/env" \
            --volume "$(realpath "$SECRETS_DIR"):/app/secrets" -- restore - "${OPTIONS[@]}" <"$FILE"
        if [ -L "$ENV_DIR/local.env" ]; then take_settings; fi
        echo "Next: make up ENV=$ENV"
        ;;
esac
