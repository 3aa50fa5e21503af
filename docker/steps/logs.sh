#!/usr/bin/env bash
# Show what the container writes, and follow it: access log, engine, errors. Ctrl-C ends the showing only.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

TAIL="${TAIL:-100}"
FOLLOW="${FOLLOW:-yes}"
EDGE_LOG="${EDGE_LOG:-no}"                  # yes: what the edge writes, its own answers and failures

choose_environment
need_engine
need_container
options=(--tail "$TAIL")
if [ "$FOLLOW" = yes ]; then options+=(--follow); fi
if [ "$EDGE_LOG" = yes ]; then CONTAINER="$EDGE"; fi
exec "$DOCKER" logs "${options[@]}" "$CONTAINER"
