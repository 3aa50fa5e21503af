#!/usr/bin/env bash
# Stop the container and take it away, requests under way first. Its state stays, unless VOLUMES=yes.
# shellcheck source-path=SCRIPTDIR source=common.sh source=release.sh source=changeover.sh
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/release.sh"
. "$(dirname "$0")/changeover.sh"

VOLUMES="${VOLUMES:-no}"                    # yes: also delete STATE_DIR's volume and all releases, which cannot be undone

choose_environment
load_settings
need_engine
take_turn
if [ -z "$(container)" ] && [ "$VOLUMES" != yes ]; then
    say down "nothing runs as project «$PROJECT»"
    exit 0
fi
options=(--remove-orphans)
if [ "$VOLUMES" = yes ]; then options+=(--volumes); fi
(compose down "${options[@]}") >/dev/null 2>&1 || compose down "${options[@]}"
"$DOCKER" network rm "$FRONT" >/dev/null 2>&1 || true
forget_monitoring "$([ "$VOLUMES" != yes ] || echo volumes)"
if [ "$VOLUMES" = yes ]; then for number in $(releases); do remove_release "$number"; done; fi
rm -f "$GIVEN" "$GPU_FILE" "$MONITORING_FILE"
say down "project «$PROJECT»$([ "$VOLUMES" = yes ] && echo " and its state" || echo "; its state stays in the volume ${PROJECT}_state")"
echo "Next: make up ENV=$ENV"
