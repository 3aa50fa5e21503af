#!/usr/bin/env bash
# Stop the container and take it away, requests under way first. Its state stays, unless VOLUMES=yes.
# shellcheck source-path=SCRIPTDIR source=common.sh source=release.sh source=changeover.sh
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/release.sh"
. "$(dirname "$0")/changeover.sh"

VOLUMES="${VOLUMES:-no}"                    # yes: also delete STATE_DIR's volume and all releases, which cannot be undone

choose_environment
load_settings note_fault
need_engine
take_turn down
if [ -z "$(container)" ] && [ "$VOLUMES" != yes ]; then
    say down "nothing runs as project «$PROJECT»"
    exit 0
fi
record down "" "asked for"
# First nobody new comes in; who is being answered still has a release.
"$DOCKER" stop -t 60 "$EDGE" >/dev/null 2>&1 || true
forget_monitoring "$([ "$VOLUMES" != yes ] || echo volumes)"
all_containers | xargs -r "$DOCKER" stop -t 60 >/dev/null 2>&1 || true
options=(--remove-orphans)
if [ "$VOLUMES" = yes ]; then options+=(--volumes); fi
# A setting that Compose cannot read keeps nobody from stopping: what it leaves is removed below.
(compose down "${options[@]}") >/dev/null 2>&1 || (compose down "${options[@]}") || true
all_containers | xargs -r "$DOCKER" rm --force >/dev/null
"$DOCKER" rm --force --volumes "$EDGE" "$EDGE-before" >/dev/null 2>&1 || true
"$DOCKER" network rm "$BACK" "${PROJECT}_front" >/dev/null 2>&1 || true
if [ "$VOLUMES" = yes ]; then
    "$DOCKER" volume rm "$EDGE_FOLDER" >/dev/null 2>&1 || true
    for number in $(releases); do remove_release "$number"; done
    "$DOCKER" volume ls -q --filter "label=com.docker.compose.project=$PROJECT" | xargs -r "$DOCKER" volume rm >/dev/null
fi
rm -f "$GIVEN" "$GPU_FILE" "$MONITORING_FILE"
say down "project «$PROJECT»$([ "$VOLUMES" = yes ] && echo " and its state" || echo "; its state stays in the volume ${PROJECT}_state")"
echo "Next: make up ENV=$ENV"
