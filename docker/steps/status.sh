#!/usr/bin/env bash
# How the service is, in a container or not: `make status`, for programs OPTIONS=--json. It makes a token of its own for that.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

choose_environment
choose_docker
if [ -n "$DOCKER" ] && CONTAINER="$(container 2>/dev/null)" && is_running "$CONTAINER"; then
    options=() differing=()
    if [ -t 1 ]; then options+=(--tty); fi
    for file in $(differing_files "$CONTAINER"); do differing+=("--differing=$file"); done
    exec "$DOCKER" exec "${options[@]}" "$CONTAINER" python -m app.cli status "${differing[@]}" "$@"
fi
if [ -n "${CONTAINER:-}" ]; then
    fail 1 "needs a running container, found it $("$DOCKER" inspect -f '{{.State.Status}} (exit {{.State.ExitCode}}, out of memory {{.State.OOMKilled}})' "$CONTAINER")." "make logs, make doctor; then make up ENV=$ENV"
fi
[ -x .venv/bin/python ] || need_access
[ -x .venv/bin/python ] || fail 1 "needs a running container or an installed service here, found neither." "make up ENV=$ENV, or make serve"
exec .venv/bin/python -m app.cli status "$@"
