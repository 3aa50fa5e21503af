#!/usr/bin/env bash
# One archive for the person who helps you, without secrets, of a container or of `make serve`; works when the service is down.
#
#   docker/steps/support-bundle.sh [FILE]
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

LINES=4000
FILE="${1:-cask-support-$(date -u +%Y%m%d-%H%M%S).tar.gz}"

# What only the engine knows, and the log; the command in the container takes secrets out of it.
told_by_engine() {
    "$DOCKER" version --format 'engine {{.Server.Version}}, client {{.Client.Version}}' 2>&1 || true
    "$DOCKER" inspect -f 'container {{.Name}} of {{.Config.Image}}: {{.State.Status}} since {{.State.StartedAt}}, out of memory {{.State.OOMKilled}}, exit {{.State.ExitCode}}, restarts {{.RestartCount}}, memory {{.HostConfig.Memory}}, processes {{.HostConfig.PidsLimit}}' "$CONTAINER"
    printf '\n'
    "$DOCKER" logs --tail "$LINES" "$CONTAINER" 2>&1
}

choose_environment
choose_docker
COMMAND=(-m app.cli support-bundle - --log -)
if [ -n "$DOCKER" ] && CONTAINER="$(container 2>/dev/null)" && [ -n "$CONTAINER" ]; then
    [ ! -e "$FILE" ] || fail 1 "needs FILE to be new, found $FILE." "make support-bundle FILE=another.tar.gz"
    umask 077
    if is_running "$CONTAINER"; then
        run=("$DOCKER" exec --interactive "$CONTAINER" python)
    else
        run=(in_stopped_container)
    fi
    told_by_engine | "${run[@]}" "${COMMAND[@]}" >"$FILE" || { rm -f "$FILE"; fail 1 "needs an archive from the container, which it could not make (above)." "make doctor ENV=$ENV"; }
    say bundle "$FILE; look into it, then send it"
    exit 0
fi
[ -x .venv/bin/python ] || need_access
[ -x .venv/bin/python ] || fail 1 "needs a container or an installed service here, found neither." "make up ENV=$ENV, or make serve"
exec .venv/bin/python -m app.cli support-bundle "$FILE"
