#!/usr/bin/env bash
# Stop the container and take it away, requests under way first. Its state stays, unless VOLUMES=yes.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

VOLUMES="${VOLUMES:-no}"                    # yes: also delete STATE_DIR's volume, which cannot be undone

choose_environment
load_settings
need_engine
# Compose wants every file that compose.yaml names, even to stop.
[ -e "$SECRETS_DIR/secret_key" ] || docker/steps/secrets.sh >/dev/null

if [ -z "$(container)" ] && [ "$VOLUMES" != yes ]; then
    say down "nothing runs as project «$PROJECT»"
    exit 0
fi
options=(--remove-orphans)
if [ "$VOLUMES" = yes ]; then options+=(--volumes); fi
compose down "${options[@]}" >/dev/null 2>&1 || compose down "${options[@]}"
forget_monitoring "$([ "$VOLUMES" != yes ] || echo volumes)"
rm -f "$GIVEN" "$GPU_FILE" "$MONITORING_FILE"
say down "project «$PROJECT»$([ "$VOLUMES" = yes ] && echo " and its state" || echo "; its state stays in the volume ${PROJECT}_state")"
echo "Next: make up ENV=$ENV"
