#!/usr/bin/env bash
# `make backup`, `make backup-check` and `make restore`: of the container where this project has one, else of the service
# without one. WHERE=here chooses the latter, WHERE=container the former: a machine that is still empty has none yet.
#
#   backup.sh create [FILE] [OPTION]…      backup.sh check FILE [OPTION]…      backup.sh restore FILE [OPTION]…
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

VERB="$1"
shift
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

case "$VERB" in
    create)
        need_container
        [ "$("$DOCKER" inspect -f '{{.State.Running}}' "$CONTAINER")" = true ] ||
            fail 2 "needs the container to run, found it stopped." "make up ENV=$ENV"
        FILE="${FILE:-backups/cask-$(date -u +%Y%m%dT%H%M%SZ).tar}"
        if [ "$FILE" = - ]; then to=/dev/stdout; else
            mkdir -p "$(dirname "$FILE")"
            to="$FILE.unfinished"
            # For its owner alone; it holds secrets.
            umask 077
            trap 'rm -f "$to"' EXIT
        fi
        if [ -n "$PASSPHRASE" ]; then
            "$DOCKER" exec --interactive "$CONTAINER" python -m app.cli backup create - ${OPTIONS[@]+"${OPTIONS[@]}"} \
                --passphrase-file - <"$PASSPHRASE" >"$to"
        else
            "$DOCKER" exec "$CONTAINER" python -m app.cli backup create - ${OPTIONS[@]+"${OPTIONS[@]}"} >"$to"
        fi
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
        if [ -n "$id" ] && [ "$("$DOCKER" inspect -f '{{.State.Running}}' "$id")" = true ]; then
            fail 2 "needs the container to be stopped: it would write into what is put back." "make down ENV=$ENV, then restore again"
        fi
        [ -n "$id" ] || need_image
        mkdir -p "$SECRETS_DIR"
        # As Compose would name it, where nothing was started here yet.
        "$DOCKER" volume create --label "com.docker.compose.project=$PROJECT" --label com.docker.compose.volume=state \
            "${PROJECT}_state" >/dev/null
        [[ " ${OPTIONS[*]-} " = *" --only"* ]] || OPTIONS+=(--only state --only settings --only secrets)
        throw_away --user 0:0 --volume "${PROJECT}_state:/var/lib/cask" --volume "$(realpath "$ENV_DIR"):/app/env" \
            --volume "$(realpath "$SECRETS_DIR"):/app/secrets" -- restore - "${OPTIONS[@]}" <"$FILE"
        echo "Next: make up ENV=$ENV"
        ;;
esac
