#!/usr/bin/env bash
# A shell in the running container, as its user; for looking, since nothing but STATE_DIR and /tmp can be written.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

COMMAND="${COMMAND:-bash}"                  # such as COMMAND='flask doctor'

choose_environment
need_engine
need_container
is_running "$CONTAINER" ||
    fail 1 "needs a running container, found it stopped." "make up ENV=$ENV"
options=(--interactive)
if [ -t 0 ]; then options+=(--tty); fi
exec "$DOCKER" exec "${options[@]}" "$CONTAINER" bash -c "$COMMAND"
