#!/usr/bin/env bash
# The last actions on this machine's service: when, what, which release and image, by whom, how it ended.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

COUNT="${COUNT:-20}"

choose_environment
load_settings note_fault
need_engine
"$DOCKER" volume inspect "$EDGE_FOLDER" >/dev/null 2>&1 ||
    fail 1 "needs a service that was started on this machine, found no history." "make up ENV=$ENV"
CONTAINER="$(container)"
# shellcheck disable=SC2016 # that shell expands it
in_edge_folder 'tail -n "$1" history' "$COUNT" | awk -F '\t' '
    BEGIN {printf "  %-20s  %-9s  %7s  %-36s  %-20s  %s\n", "WHEN (UTC)", "ACTION", "RELEASE", "IMAGE", "BY", "RESULT"}
    {printf "  %-20s  %-9s  %7s  %-36s  %-20s  %s\n", $1, $2, $3, $4, $5, $6}'
