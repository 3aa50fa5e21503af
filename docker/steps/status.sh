#!/usr/bin/env bash
# What the service says of itself, as JSON, in a container or not: `make status`. It makes a token of its own for that.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

choose_environment
choose_docker
if [ -n "$DOCKER" ] && CONTAINER="$(container 2>/dev/null)" && [ -n "$CONTAINER" ] &&
    [ "$("$DOCKER" inspect -f '{{.State.Running}}' "$CONTAINER" 2>/dev/null)" = true ]; then
    exec "$DOCKER" exec "$CONTAINER" python -m app.cli status
fi
exec .venv/bin/python -m app.cli status
