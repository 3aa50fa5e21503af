#!/usr/bin/env bash
# How the service is, in a container or not: `make status`, for programs OPTIONS=--json. It makes a token of its own for that.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

# Files of this host that are other than the copies that the container runs with.
differing() { # differing : prints their names
    local folder place file
    for folder in "$ENV_DIR" "$SECRETS_DIR"; do
        place=/app/env
        if [ "$folder" = "$SECRETS_DIR" ]; then place=/run/secrets; fi
        for file in "$folder"/*; do
            [ -f "$file" ] && [ -r "$file" ] || continue
            [ "$(sha256sum <"$file")" = "$("$DOCKER" exec "$CONTAINER" cat "$place/${file##*/}" 2>/dev/null | sha256sum)" ] || echo "$file"
        done
    done
}

choose_environment
choose_docker
if [ -n "$DOCKER" ] && CONTAINER="$(container 2>/dev/null)" && [ -n "$CONTAINER" ] &&
    [ "$("$DOCKER" inspect -f '{{.State.Running}}' "$CONTAINER" 2>/dev/null)" = true ]; then
    options=() differing=()
    if [ -t 1 ]; then options+=(--tty); fi
    while read -r file; do differing+=("--differing=$file"); done < <(differing)
    exec "$DOCKER" exec "${options[@]}" "$CONTAINER" python -m app.cli status "${differing[@]}" "$@"
fi
if [ -n "${CONTAINER:-}" ]; then
    fail 1 "needs a running container, found it $("$DOCKER" inspect -f '{{.State.Status}} (exit {{.State.ExitCode}}, out of memory {{.State.OOMKilled}})' "$CONTAINER")." "make logs, make doctor; then make up ENV=$ENV"
fi
[ -x .venv/bin/python ] || need_access
[ -x .venv/bin/python ] || fail 1 "needs a running container or an installed service here, found neither." "make up ENV=$ENV, or make serve"
exec .venv/bin/python -m app.cli status "$@"
