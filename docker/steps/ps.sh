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
    "$DOCKER" top "$CONTAINER" -o pid,rss,args | awk '
        NR == 1 {next}
        {name = $3; if (!(name in count)) order[++names] = name; count[name]++; rss[name] += $2; pids[name] = pids[name] " " $1}
        END {printf "  %-22s %6s %6s  %s\n", "PROCESS", "COUNT", "MB", "PIDS (of the host)"
             for (i = 1; i <= names; i++) {
                 name = order[i]
                 printf "  %-22s %6d %6.0f %s\n", name, count[name], rss[name] / 1024, substr(pids[name], 1, 70)}}'
    say memory "$("$DOCKER" stats --no-stream --format '{{.MemUsage}}, CPU {{.CPUPerc}}' "$CONTAINER")"
fi
