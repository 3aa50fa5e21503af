#!/usr/bin/env bash
# What runs: edge and releases, whether the one that serves is ready, its processes and their memory, and what differs
# between the files and it.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

choose_environment
load_settings note_fault
need_engine
need_container
read_links
printf '  %-28s %-36s %s\n' CONTAINER IMAGE STATUS
for id in "$EDGE" $(all_containers); do
    case "$("$DOCKER" inspect -f '{{index .Config.Labels "cask.release"}}' "$id" 2>/dev/null || echo gone)" in
        gone) continue ;;
        '' | '<no value>') role=edge ;;
        "$CURRENT") role="serves" ;;
        *) role="stands by" ;;
    esac
    "$DOCKER" ps -a --filter "id=$("$DOCKER" inspect -f '{{.Id}}' "$id")" --format '{{.Names}}\t{{.Image}}\t{{.Status}} {{.Ports}}' |
        while IFS=$'\t' read -r name image status; do printf '  %-28s %-36s %s: %s\n' "$name" "$image" "$role" "$status"; done
done
if is_running "$CONTAINER"; then
    if missing="$("$DOCKER" exec "$CONTAINER" python -I docker/health.py)"; then say ready yes; else say ready "no: $missing"; fi
    differing="$(differing_files "$CONTAINER")"
    if [ -n "$differing" ]; then say differs "$differing: make up (or make reload) puts the files into force"; fi
    "$DOCKER" top "$CONTAINER" -o pid,rss,args | awk '
        NR == 1 {next}
        {name = $3; if (!(name in count)) order[++names] = name; count[name]++; rss[name] += $2; pids[name] = pids[name] " " $1}
        END {printf "  %-22s %6s %6s  %s\n", "PROCESS", "COUNT", "MB", "PIDS (of the host)"
             for (i = 1; i <= names; i++) {
                 name = order[i]
                 printf "  %-22s %6d %6.0f %s\n", name, count[name], rss[name] / 1024, substr(pids[name], 1, 70)}}'
    say memory "$("$DOCKER" stats --no-stream --format '{{.MemUsage}}, CPU {{.CPUPerc}}' "$CONTAINER")"
    if is_running "$EDGE"; then say "edge" "$("$DOCKER" stats --no-stream --format '{{.MemUsage}}, CPU {{.CPUPerc}}' "$EDGE")"; fi
fi
