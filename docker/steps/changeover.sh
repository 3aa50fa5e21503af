# From the container that serves to the next release's; sourced by up.sh and rollback.sh after release.sh.
# shellcheck shell=bash
#
# The new container starts beside the old one, in a network of its own that publishes no port, and loads its models there.
# Once it is ready the old one stops, finishing what it has, and the new one moves into the network that publishes ports:
# that is when callers wait. Where two have no room, the new one starts after the old one has ended.

MIN_FREE_MB="${MIN_FREE_MB:-1024}"          # of the machine's memory, for a second container during the change
FRONT="${PROJECT}_front"
BESIDE="${PROJECT}_beside"
OLD=""                                      # the container that serves while another is started beside it

# --- looking ----------------------------------------------------------------------------------------------------------

networks_of() { "$DOCKER" inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}' "$1" | grep .; }

is_running() { [ -n "$1" ] && [ "$("$DOCKER" inspect -f '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }

# Says in words why two cannot run at once; says nothing where they can.
no_room() { # no_room CONTAINER NUMBER
    local file free_kb
    free_kb="$("$DOCKER" exec "$1" sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo || true)"
    file="$(release_label "$2" compose | base64 -d)"
    if ! grep -q '/var/lib/cask/run\b' <<<"$file" ||
        ! "$DOCKER" inspect -f '{{range .Mounts}}{{println .Destination}}{{end}}' "$1" | grep -qx /var/lib/cask/run; then
        echo "one of them was made by an earlier Cask"
    elif grep -q 'driver: nvidia' <<<"$file"; then
        echo "one GPU may not hold the models twice"
    elif [ "${free_kb:-0}" -lt $((MIN_FREE_MB * 1024)) ]; then
        echo "less than $MIN_FREE_MB MB of memory are free"
    fi
}

has_others() { # has_others NUMBER : monitoring, in that release or still there
    release_label "$1" compose | base64 -d | grep -q '^  prometheus:' ||
        [ "$("$DOCKER" ps -aq --filter "label=com.docker.compose.project=$PROJECT" | wc -l)" -gt "$(all_containers | wc -l)" ]
}

# --- running ----------------------------------------------------------------------------------------------------------

make_front() { "$DOCKER" network inspect "$FRONT" >/dev/null 2>&1 || "$DOCKER" network create "$FRONT" >/dev/null; }

compose_release() { # compose_release NUMBER ARGUMENT… : by the file that it was made with
    local number="$1" file host status=0
    shift
    make_front
    host="$("$DOCKER" network inspect -f '{{(index .IPAM.Config 0).Gateway}}' "$FRONT")"
    file="$(umask 077; mktemp "${TMPDIR:-/tmp}/cask-compose.XXXXXX.yaml")"
    release_label "$number" compose | base64 -d | sed "s/HOSTADDRESS/$host/" >"$file"
    run_compose -p "$PROJECT" -f "$file" "$@" || status=$?
    rm -f "$file"
    return "$status"
}

# As the start does it, as the same user, with the same mounts; the state is only looked at.
check_release() { # check_release NUMBER : prints the reason and returns 1 when it would not start
    local said
    said="$(compose_release "$1" run --rm --no-deps -T --entrypoint '' cask bash -c \
        '{ python -m app.storage.state_files && CASK_ANNOUNCE=no STATE_DIR=/tmp/state bash apache/serve.sh --check; } 2>&1' \
        2>"$LOG" </dev/null)" && return 0
    said="$(printf '%s\n' "$said" | grep -v '^$' | { grep -v '^{' || true; } | sed 's/^FAIL: //' | head -n 1)"
    printf '%s' "${said:-$(grep -v '^$' "$LOG" | tail -n 1)}"
    return 1
}

first_exit_status() { # first_exit_status SINCE : by now the engine may be starting it again
    # Until the end of this second: the time is cut to seconds, and the container may have ended in this one.
    "$DOCKER" events --since "$1" --until "$(($(date +%s) + 1))" --filter "container=$CONTAINER" --filter event=die \
        --format '{{index .Actor.Attributes "exitCode"}}' | head -n 1
}

LOOK_SECONDS=2 # so long one process looks, before the container itself is looked at again
wait_ready() { # wait_ready SINCE RESTARTS : returns 1 and sets REASON where CONTAINER does not become ready
    local state restarts missing said="" began=$SECONDS
    while true; do
        read -r state restarts < <("$DOCKER" inspect -f '{{.State.Status}} {{.RestartCount}}' "$CONTAINER")
        if [ "$state" != running ] || [ "$restarts" -gt "$2" ]; then
            # Otherwise the engine would start it again and again.
            "$DOCKER" stop "$CONTAINER" >/dev/null 2>&1 || true
            REASON="it ended with status $(first_exit_status "$1")"
            return 1
        fi
        if missing="$("$DOCKER" exec "$CONTAINER" python -I docker/health.py "$LOOK_SECONDS" 2>&1)"; then return 0; fi
        if [ $((SECONDS - began)) -ge "$WAIT_SECONDS" ]; then
            REASON="it is not ready after $WAIT_SECONDS s: $missing"
            return 1
        fi
        if [ "$missing" != "$said" ]; then
            said="$missing"
            say "$((SECONDS - began)) s" "${missing:-starting}"
        fi
        # Where an earlier release looks once only, each look costs a start of Python, which the machine needs for others.
        sleep 0.2
    done
}

refused_by_engine() { # sets REASON from what it wrote to $LOG
    REASON="the engine did not start it: $(grep -iE 'error|cannot|in use' "$LOG" | grep -v 'Encountered errors' | tail -n 1 | cut -c 1-400)"
}

# One change at a time on this machine, from whichever folder; until this process ends.
take_turn() {
    local folder=/run/lock lock
    [ -w "$folder" ] || folder=/tmp
    lock="$folder/cask.$PROJECT.lock"
    # Another user's file is opened for reading, which a lock does not mind.
    [ -e "$lock" ] || (umask 0 && : >"$lock")
    exec 9<"$lock"
    # leave may run while a command writes to a file.
    exec 8>&2
    trap leave EXIT
    flock -n 9 || fail 1 "needs to be the only one who changes the project «$PROJECT», found another command that does." "wait for it, then again"
    forget_beside
    # Of a check that was interrupted.
    "$DOCKER" ps -aq --filter "label=com.docker.compose.project=$PROJECT" --filter label=com.docker.compose.oneoff=True |
        xargs -r "$DOCKER" rm --force >/dev/null
}

# Whatever ends a step: nothing is left of what never served. Ctrl-C and a closed terminal end it too.
leave() {
    local unserved="$UNSERVED"
    [ -z "${STAGE:-}" ] || rm -rf "$STAGE"
    [ -z "$OLD" ] || forget_beside
    forget_unserved
    [ -z "$FAILED" ] && [ -n "$OLD$unserved" ] || return 0
    printf '\nFAIL: interrupted before release %s served. What served before serves on.\nNext: make %s again\n' \
        "$RELEASE" "$(basename "$0" .sh)" >&8
}

# Until a container that is stopping takes no connection any more and has sent its last answer; 1 where that cannot be seen.
wait_answered() { # wait_answered CONTAINER
    local port ports=""
    for port in $("$DOCKER" inspect -f '{{range $port, $_ := .NetworkSettings.Ports}}{{println $port}}{{end}}' "$1"); do
        ports="$ports${ports:+|}$(printf '%04X' "${port%/*}")"
    done
    # States of /proc/net/tcp: 01 established, 04, 09, 0B closed with an answer under way, 08 half closed, 0A listening.
    "$DOCKER" exec "$1" timeout 60 sh -c "while grep -qE '^ *[0-9]+: [0-9A-F]+:($ports) [0-9A-F:]+ (01|04|08|09|0A|0B) ' \\
        /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done" >/dev/null 2>&1
}

# --- the change -------------------------------------------------------------------------------------------------------

start_release() { # start_release NUMBER : sets CONTAINER; where it does not become ready, REASON, and returns 1
    local before why
    forget_beside
    before="$(container)"
    if ! is_running "$before" || [ "$(container_label "$before" release)" = "$1" ]; then
        start_alone "$1" "$before"
    elif why="$(no_room "$before" "$1")" && [ -n "$why" ]; then
        say note "nobody is answered during the change: $why"
        start_alone "$1" "$before"
    else
        start_beside "$1" "$before"
    fi
}

start_alone() { # start_alone NUMBER BEFORE : Compose ends what serves, and starts this
    local restarts=0 began
    began="$(date +%s)"
    compose_release "$1" up -d --remove-orphans >"$LOG" 2>&1 </dev/null || { refused_by_engine; return 1; }
    need_container
    # A container that was there already may have been restarted in its life; only what happens now counts.
    if [ "$2" = "$CONTAINER" ]; then restarts="$("$DOCKER" inspect -f '{{.RestartCount}}' "$CONTAINER")"; fi
    wait_ready "$began" "$restarts"
}

start_beside() { # start_beside NUMBER BEFORE : sets OLD for as long as that one serves
    local network networks began stopping
    OLD="$2"
    began="$(date +%s)"
    "$DOCKER" network create --internal "$BESIDE" >/dev/null
    compose_release "$1" up --no-start --no-recreate --scale cask=2 cask >"$LOG" 2>&1 </dev/null || { refused_by_engine; return 1; }
    need_container
    networks="$(networks_of "$CONTAINER")"
    for network in $networks; do "$DOCKER" network disconnect "$network" "$CONTAINER"; done
    "$DOCKER" network connect "$BESIDE" "$CONTAINER"
    "$DOCKER" start "$CONTAINER" >/dev/null 2>"$LOG" || { refused_by_engine; return 1; }
    wait_ready "$began" 0 || return 1
    # From here to the end of the change nobody may be left without a container: a closed terminal and Ctrl-C must wait.
    trap '' HUP INT TERM
    say change "it is ready; the old one finishes what it has"
    OLD=""
    "$DOCKER" stop -t 60 "$2" >/dev/null &
    stopping=$!
    wait_answered "$2" || wait "$stopping" || true
    # Its processes end without callers; nobody waits for that. All of its networks: in whichever it stays, the engine
    # would publish its ports.
    for network in $(networks_of "$2"); do
        # Where it will not leave, its end gives the port free.
        "$DOCKER" network disconnect "$network" "$2" >/dev/null 2>&1 || wait "$stopping" || true
    done
    for network in $networks; do
        "$DOCKER" network connect --alias cask "$network" "$CONTAINER" >"$LOG" 2>&1 || { refused_by_engine; return 1; }
    done
    wait "$stopping" || true
    "$DOCKER" rm "$2" >/dev/null
    forget_beside
    trap - HUP INT TERM
    if has_others "$1"; then
        compose_release "$1" up -d --remove-orphans >"$LOG" 2>&1 </dev/null || { refused_by_engine; return 1; }
    fi
}

forget_beside() { # what an interrupted change left, and the network
    local id
    "$DOCKER" network inspect "$BESIDE" >/dev/null 2>&1 || return 0
    for id in $(all_containers); do
        if [ "$(networks_of "$id")" = "$BESIDE" ]; then
            "$DOCKER" rm --force "$id" >/dev/null
        else
            "$DOCKER" network disconnect "$BESIDE" "$id" >/dev/null 2>&1 || true
        fi
    done
    "$DOCKER" network rm "$BESIDE" >/dev/null
}

# Takes what does not serve away, and starts what served before where that has been stopped. Always ends with status 1.
restore_release() { # restore_release FAILED BEFORE : BEFORE is empty where there was nothing
    local reason="$REASON" next="mend what it names, then: make up ENV=$ENV" said=""
    if CONTAINER="$(container)" && [ "$CONTAINER" != "$OLD" ]; then
        printf '\n' >&2
        # Started again and again, it says the same again and again.
        "$DOCKER" logs --tail 15 "$CONTAINER" 2>&1 | awk '!seen[$0]++ {print "    " $0}' >&2
        said="$("$DOCKER" logs --tail 15 "$CONTAINER" 2>&1 | last_reason)"
        reason="$reason${said:+: $said}"
    fi
    if [ -z "$2" ]; then
        fail 1 "needs a ready container, found that $reason (above: the end of its log); nothing served before." \
            "$next (make logs shows all of it, make down clears it away)"
    fi
    if [ -n "$OLD" ]; then
        [ "$CONTAINER" = "$OLD" ] || "$DOCKER" rm --force "$CONTAINER" >/dev/null
        forget_beside
        forget_unserved
        fail 1 "release $1 does not serve, for ${reason%.}. $(release_words "$2") serves on." "$next"
    fi
    say restore "$(release_words "$2")"
    all_containers | xargs -r "$DOCKER" rm --force >/dev/null
    forget_unserved
    # Short for the new one may be too short for what is known to work.
    [ "$WAIT_SECONDS" -ge 180 ] || WAIT_SECONDS=180
    if start_release "$2"; then
        fail 1 "release $1 does not serve, for ${reason%.}. $(release_words "$2") serves again." "$next"
    fi
    fail 1 "release $1 does not serve, for ${reason%.}. Nor does $(release_words "$2") any more, for $REASON." "make logs; $next"
}
