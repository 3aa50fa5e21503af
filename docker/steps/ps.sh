#!/usr/bin/env bash
# What runs: the container, whether it is ready, its processes and their memory.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

choose_environment
need_engine
need_container
"$DOCKER" ps -a --filter "id=$CONTAINER" --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}\t{{.Ports}}'
if [ "$("$DOCKER" inspect -f '{{.State.Running}}' "$CONTAINER")" = true ]; then
    if missing="$("$DOCKER" exec "$CONTAINER" python -I docker/health.py)"; then say ready yes; else say ready "no: $missing"; fi
    "$DOCKER" top "$CONTAINER" -o pid,rss,etime,args | awk '
        NR == 1 {printf "  %8s %8s %10s  %s\n", "PID", "MB", "SINCE", "PROCESS"; next}
        {args = ""; for (i = 4; i <= NF; i++) args = args (i > 4 ? " " : "") $i
         printf "  %8s %8.0f %10s  %s\n", $1, $2 / 1024, $3, substr(args, 1, 80)}'
    "$DOCKER" stats --no-stream --format '  memory       {{.MemUsage}}, CPU {{.CPUPerc}}' "$CONTAINER"
fi
