#!/usr/bin/env bash
# Go back to the release before the one that serves: its image, settings and secrets. Again: one further back.
# shellcheck source-path=SCRIPTDIR source=common.sh source=release.sh source=changeover.sh
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/release.sh"
. "$(dirname "$0")/changeover.sh"

RELEASE="${RELEASE:-}"                      # its number; default: the one before
WAIT_SECONDS="${WAIT_SECONDS:-180}"

choose_environment
need_engine
take_turn rollback
need_choices
before="$(container)"
from="$([ -z "$before" ] || container_label "$before" release)"
kept="$(releases | paste -sd ' ')"
case "$RELEASE" in *[!0-9]*) fail 2 "needs RELEASE to be a number, found «$RELEASE»; kept are: ${kept:-none}." "make rollback" ;; esac
if [ -z "$RELEASE" ]; then
    # After `make down` the newest is what served last.
    for number in $kept; do
        if [ "$number" -lt "${from:-${kept%% *}}" ]; then RELEASE="$number"; break; fi
    done
fi
if [ -z "$RELEASE" ]; then
    fail 1 "There is nothing to go back to: ${from:+release $from serves, and }kept are: ${kept:-none}." "make up ENV=$ENV"
fi
has_release "$RELEASE" || fail 1 "There is no release $RELEASE to go back to; kept are: ${kept:-none}." "make rollback"
image="$(release_label "$RELEASE" image)"
"$DOCKER" image inspect "$image" >/dev/null 2>&1 ||
    fail 1 "Release $RELEASE needs the image $image, which somebody has removed; kept are: $kept." "make rollback RELEASE=another"
[ -n "$(release_label "$RELEASE" port)" ] ||
    fail 1 "Release $RELEASE was made by an earlier Cask, without an edge; kept are: $kept." "make up ENV=$ENV with that checkout's files"
CASK_IMAGE="$image"
still_serves() { [ -z "$from" ] || printf ' Nothing was touched: %s serves on.' "$(release_words "$from")"; }
if [ "$RELEASE" = "$from" ]; then
    say rollback "to what serves already"
elif [ -n "$before" ]; then
    need_room "$before" "$RELEASE"
fi

# --- from here on, something changes ----------------------------------------------------------------------------------

mkdir -p build
began=$SECONDS
say rollback "from $([ -n "$from" ] && release_words "$from" || echo 'nothing that runs') to $(release_words "$RELEASE")"
if ! start_release "$RELEASE"; then restore_release "$RELEASE" "$([ "$from" = "$RELEASE" ] || echo "$from")"; fi
note_environment
say ready "release $RELEASE serves (ENV=$ENV, after $((SECONDS - began)) s)"
echo "Next: make smoke. env/ and secrets/ are as they were: make up makes a release of them again."
