#!/usr/bin/env bash
# Replace the processes of the running service one by one; requests in flight finish, and none is lost.
# shellcheck source-path=SCRIPTDIR source=common.sh source=release.sh source=changeover.sh
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/release.sh"
. "$(dirname "$0")/changeover.sh"

choose_environment
choose_docker
if [ -z "$DOCKER" ] || ! CONTAINER="$(container 2>/dev/null)" || ! is_running "$CONTAINER"; then
    exec .venv/bin/python apache/reload.py
fi
load_settings note_fault
take_turn recycle
CASK_IMAGE="$("$DOCKER" inspect -f '{{.Config.Image}}' "$CONTAINER")"
"$DOCKER" exec "$CONTAINER" python apache/reload.py || fail 1 "needs each process to be replaced, found one that was not (above)." "make logs"
record recycle "$(container_label "$CONTAINER" release)" done
