# From the release that serves to the next; sourced by up.sh, rollback.sh and down.sh after release.sh.
# shellcheck shell=bash
#
# The new container starts beside the old one and loads its models. Once it is ready and its answers are right, the edge's
# link names it, the old one finishes what it has and stands by. Where two have no room, the old one ends first.

MIN_FREE_MB="${MIN_FREE_MB:-}"              # of the machine's memory, for a second container during the change; empty: as
                                            # much as the one that serves takes, and a quarter more
DOCTOR="${DOCTOR:-yes}"                     # no: a failure that the new image's doctor finds does not end the deploy
STOP_FIRST="${STOP_FIRST:-no}"              # yes: the one that serves ends before the next one starts
FULL_SHARES=1024                            # of processor time, against other containers: the engine's own default
STARTING_SHARES=128                         # while callers are served by another
LEFT=""                                     # once leave has begun
CLIENT=""                                   # of the engine, while signals are held; see hold_signals
STOPPING=""                                 # once a signal came while nothing served
OLD=""                                      # the container that serves while another is started beside it
ACTION=""                                   # for the history: what this command does
RESULT=serves                               # and what it did, where it succeeds

# --- looking ----------------------------------------------------------------------------------------------------------

# Says in words why two cannot run at once, for reasons that nobody can change now; says nothing where they can.
never_beside() { # never_beside CONTAINER NUMBER
    if ! has_edge_folder "$1"; then
        echo "the one that serves was made by an earlier Cask, without an edge"
    elif release_label "$2" compose | base64 -d | grep -q 'driver: nvidia'; then
        echo "one GPU may not hold the models twice"
    elif [ "$STOP_FIRST" = yes ]; then
        echo "STOP_FIRST=yes"
    fi
}

# Of all processes in a container, in MB: what another one of its kind will take. Files that the kernel keeps are free.
memory_of() { # memory_of CONTAINER
    # shellcheck disable=SC2016
    "$DOCKER" exec "$1" sh -c 'cat /proc/[0-9]*/status 2>/dev/null' |
        awk '/^Rss(Anon|Shmem):/ {kb += $2} END {printf "%d", kb / 1024}'
}

need_choices() { # what was given to this command, before it begins
    case "$STOP_FIRST" in yes | no) ;; *) fail 2 "needs STOP_FIRST to be yes or no, found «$STOP_FIRST»." "make $ACTION STOP_FIRST=yes" ;; esac
    case "$DOCTOR" in yes | no) ;; *) fail 2 "needs DOCTOR to be yes or no, found «$DOCTOR»." "make $ACTION DOCTOR=no" ;; esac
    case "$MIN_FREE_MB" in *[!0-9]*) fail 2 "needs MIN_FREE_MB to be a number of MB, found «$MIN_FREE_MB»." "make $ACTION MIN_FREE_MB=512" ;; esac
}

# Before anything is touched. Where two containers have no room, callers will be refused for a while: the operator decides.
need_room() { # need_room CONTAINER NUMBER : CONTAINER serves; of NUMBER the settings are made
    local free used needed
    is_running "$1" || return 0
    [ -z "$(never_beside "$1" "$2")" ] || return 0
    free="$("$DOCKER" exec "$1" awk '/^MemAvailable:/ {printf "%d", $2 / 1024}' /proc/meminfo)"
    used="$(memory_of "$1")"
    needed="${MIN_FREE_MB:-$((used * 5 / 4))}"
    [ "${free:-0}" -lt "$needed" ] || return 0
    fail 2 "needs $needed MB of free memory to start a release beside the one that serves (which takes $used MB), found $free MB.$(still_serves)" \
        "free memory, or: make $ACTION ENV=$ENV STOP_FIRST=yes (it ends first; callers get 503 until the next one is ready, about half a minute)"
}

compose_file() { release_label "$1" compose | base64 -d; } # compose_file NUMBER : as it was made
has_monitoring() { compose_file "$1" | grep -q '^  prometheus:'; }

# --- running ----------------------------------------------------------------------------------------------------------

compose_release() { # compose_release NUMBER ARGUMENT… : by the file that it was made with
    local number="$1" file status=0
    shift
    make_network
    file="$(umask 077; mktemp "${TMPDIR:-/tmp}/cask-compose.XXXXXX.yaml")"
    compose_file "$number" |
        sed "s/HOSTADDRESS/$(host_address)/; s/EDGEADDRESS/$(edge_address)/; s/RELEASEADDRESS/$(release_address "$number")/" >"$file"
    COMPOSE_IGNORE_ORPHANS=true run_compose -p "$PROJECT" -f "$file" "$@" || status=$?
    rm -f "$file"
    return "$status"
}

# The first thing that the new image's doctor says fails, with its advice.
DOCTORS_FAILURES='import json, sys
for each in json.load(sys.stdin)["findings"]:
    if each["verdict"] == "fail":
        sys.exit("the doctor: %s: %s → %s" % (each["subject"], each["found"], each["next_step"]))'

# As the start does it, as the same user, with the same mounts; the state is only looked at. Leaves the edge's configuration.
check_release() { # check_release NUMBER : prints the reason and returns 1 when it would not start
    local said status=0
    # shellcheck disable=SC2016
    said="$(compose_release "$1" run --rm --no-deps -T --entrypoint '' -e "CHECKED=$1" -e "DOCTOR=$DOCTOR" \
        -e "DOCTORS_FAILURES=$DOCTORS_FAILURES" cask bash -c '
        export CASK_ANNOUNCE=no STATE_DIR=/tmp/state
        asks_doctor() { STATE_DIR=/var/lib/cask python -m app.cli doctor --json | python -c "$DOCTORS_FAILURES"; }
        # Where it is right, it says so, which is no reason.
        check_start() { local said; said="$(bash apache/serve.sh --check 2>&1)" || { echo "$said"; return 1; }; }
        { STATE_DIR=/var/lib/cask python -m app.storage.state_files && check_start &&
            { [ "$DOCTOR" = no ] || asks_doctor; } &&
            python apache/edge.py /tmp/edge /edge/conf; } 2>&1 || exit 1
        cd /tmp/edge && cat * */* 2>/dev/null | sha256sum >digest && rm -rf "/edge/conf-$CHECKED" && cp -R . "/edge/conf-$CHECKED" &&
            find "/edge/conf-$CHECKED" -exec sync {} +
        ' 2>"$LOG" </dev/null)" || status=$?
    [ "$status" -ne 0 ] || return 0
    if [ "$status" -gt 128 ]; then
        printf 'the check of its settings was ended by signal %s (9 also ends what takes more memory than it may).' $((status - 128))
        return 1
    fi
    said="$(printf '%s\n' "$said" | grep -v '^$' | { grep -v '^{' || true; } | sed 's/^FAIL: //' | head -n 1)"
    printf '%s' "${said:-$(grep -v '^$' "$LOG" | tail -n 1)}"
    return 1
}

# By the engine's own clock, for its events: another machine's may be minutes away from this one's.
engine_seconds() {
    local now
    now="$("$DOCKER" info -f '{{.SystemTime}}' 2>/dev/null)" || now=""
    date -d "${now:-now}" +%s
}

first_exit_status() { # first_exit_status SINCE : by now the engine may be starting it again
    # Until the end of this second: the time is cut to seconds, and the container may have ended in this one.
    "$DOCKER" events --since "$1" --until "$(($(engine_seconds) + 1))" --filter "container=$CONTAINER" --filter event=die \
        --format '{{index .Actor.Attributes "exitCode"}}' | head -n 1
}

# A signal that came while nothing served is heard here, between two steps; also of a release that was ready meanwhile.
is_wanted() { # returns 1 and sets REASON
    [ -n "$STOPPING" ] || return 0
    REASON="it was interrupted before it served"
    return 1
}

LOOK_SECONDS=2 # so long one process looks, before the container itself is looked at again
wait_ready() { # wait_ready SINCE RESTARTS : returns 1 and sets REASON where CONTAINER does not become ready
    local state restarts missing said="" began
    began="$(steady_seconds)"
    while true; do
        read -r state restarts < <("$DOCKER" inspect -f '{{.State.Status}} {{.RestartCount}}' "$CONTAINER")
        if [ "$state" != running ] || [ "$restarts" -gt "$2" ]; then
            # Otherwise the engine would start it again and again.
            "$DOCKER" stop "$CONTAINER" >/dev/null 2>&1 || true
            REASON="it ended with status $(first_exit_status "$1")"
            return 1
        fi
        if missing="$("$DOCKER" exec "$CONTAINER" python -I docker/health.py "$LOOK_SECONDS" 2>&1)"; then return 0; fi
        is_wanted || return 1
        if [ $(($(steady_seconds) - began)) -ge "$WAIT_SECONDS" ]; then
            REASON="it is not ready after $WAIT_SECONDS s: $missing"
            return 1
        fi
        if [ "$missing" != "$said" ]; then
            said="$missing"
            say "$(($(steady_seconds) - began)) s" "${missing:-starting}"
        fi
        # Where an earlier release looks once only, each look costs a start of Python, which the machine needs for others.
        sleep 0.2
    done
}

# The samples that the models bring, asked of CONTAINER itself: a release that answers wrongly never serves.
judge_answers() { # returns 1 and sets REASON
    local said
    # shellcheck disable=SC2016
    said="$("$DOCKER" exec "$CONTAINER" sh -c '
        base="http://127.0.0.1:$PORT"
        if [ "${HTTPS_PORT:-0}" != 0 ]; then base="https://127.0.0.1:$HTTPS_PORT"; export SMOKE_CERTIFICATE="$TLS_CERTIFICATE"; fi
        SMOKE_TOKEN="$(python -m app.cli token create smoke --internal --json | sed -n "s/^ *\"token\": \"\(cask_[0-9a-f_]*\)\".*/\1/p")"
        SMOKE_HOST="$(python -m app.cli config get SERVER_NAME)"
        export SMOKE_TOKEN SMOKE_HOST
        exec python docker/smoke.py "$base"' 2>&1)" && return 0
    # A store whose models have other tasks than the samples.
    if grep -q ' 0 of 0 samples right ' <<<"$said"; then return 0; fi
    REASON="its answers to the samples are not right: $(grep -E 'FAIL|NO ' <<<"$said" | head -n 1 | tr -s ' ')"
    return 1
}

# From where callers are: the release that the edge itself says has answered.
verify_edge() { # verify_edge NUMBER : returns 1 and sets REASON
    # shellcheck disable=SC2016
    "$DOCKER" exec "$CONTAINER" python -I -c '
import os, sys, time, urllib.request
for _ in range(50):
    try:
        with urllib.request.urlopen("http://%s:%s/livez" % (sys.argv[1], os.environ["PORT"]), timeout=5) as answer:
            if answer.headers["X-Cask-Release"] == sys.argv[2]:
                sys.exit()
    except OSError:
        pass
    time.sleep(0.1)
sys.exit(1)' "$(edge_address)" "$1" 2>/dev/null && return 0
    REASON="the edge does not answer with it: $("$DOCKER" logs --tail 1 "$EDGE" 2>&1)"
    return 1
}

refused_by_engine() { # sets REASON from what it wrote to $LOG
    REASON="the engine did not start it: $(grep -iE 'error|cannot|in use' "$LOG" | grep -v 'Encountered errors' | tail -n 1 | cut -c 1-400)"
}

# On another machine others may be at work from a third: a container of this name is there as long as this process is.
take_turn_there() {
    local image mine="$(hostname) $$ $RANDOM" holder=""
    image="$("$DOCKER" inspect -f '{{.Image}}' "$EDGE" 2>/dev/null)" || return 0
    exec 6> >(
        trap '' HUP INT TERM
        exec "$DOCKER" run --rm --interactive --network none --name "$PROJECT-turn" --label "cask.turn=$mine" \
            --entrypoint cat "$image" >/dev/null 2>&1
    )
    until [ -n "$holder" ]; do
        sleep 0.1
        holder="$("$DOCKER" inspect -f '{{index .Config.Labels "cask.turn"}}' "$PROJECT-turn" 2>/dev/null || true)"
        [ -n "$holder" ] || kill -0 $! 2>/dev/null || break
    done
    [ "$holder" = "$mine" ]
}

# One change at a time on this machine, from whichever folder; until this process ends.
take_turn() { # take_turn ACTION
    local folder=/run/lock lock
    [ -w "$folder" ] || folder=/tmp
    lock="$folder/cask.$PROJECT.lock"
    # Another user's file is opened for reading, which a lock does not mind.
    [ -e "$lock" ] || (umask 0 && : >"$lock")
    exec 9<"$lock"
    # leave may run while a command writes to a file.
    exec 8>&2
    trap leave EXIT
    heed_signals
    { flock -n 9 && { [ -z "$ENGINE_HOST" ] || take_turn_there; }; } ||
        fail 1 "needs to be the only one who changes the project «$PROJECT», found another command that does." "wait for it, then again"
    ACTION="$1"
    # Of a check that was interrupted.
    "$DOCKER" ps -aq --filter "label=com.docker.compose.project=$PROJECT" --filter label=com.docker.compose.oneoff=True |
        xargs -r "$DOCKER" rm --force >/dev/null
}

# Newer clients of the engine, and Compose, set handlers of their own over an ignored signal: in a session of its own none of
# them hears a terminal.
apart() { setsid "$CLIENT" "$@"; }

# A command that the same Ctrl-C ended may end the step a moment before this process hears of the signal itself; without a
# trap that would then end `leave` half way.
heed_signals() {
    trap 'interrupted 129' HUP
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
    DOCKER="${CLIENT:-$DOCKER}"
}

# From here on nobody may be left without a container: a closed terminal and Ctrl-C must wait.
hold_signals() { # hold_signals [COMMAND] : which one of them runs; empty is none
    trap "${1:-}" HUP INT TERM
    [ "$DOCKER" = apart ] || CLIENT="$DOCKER"
    DOCKER=apart
}

interrupted() { # interrupted STATUS
    [ -z "$LEFT" ] || return 0
    leave
    exit "$1"
}

# Whatever ends a step: nothing is left of what never served. Ctrl-C and a closed terminal end it too.
leave() {
    [ -z "$LEFT" ] || return 0
    LEFT=yes
    hold_signals
    # What one command cannot clear away must not keep the others from it.
    set +e
    local begun=""
    [ -z "${STAGE:-}" ] || rm -rf "$STAGE"
    if [ -n "$OLD$UNSERVED" ] && [ -z "$FAILED" ] && has_lost_engine; then return 0; fi
    if [ -n "$OLD" ]; then
        begun="What served before serves on."
        forget_tried
    elif [ -n "$UNSERVED" ]; then
        "$DOCKER" rm --force "$(container_of "$UNSERVED")" >/dev/null 2>&1
        begun="Nothing served before."
        if is_running "$(container)"; then begun="What served before serves on."; fi
    fi
    [ -z "$ACTION" ] || CONTAINER="${OLD:-$(container)}"
    [ -z "$ACTION" ] || [ -z "$FAILED" ] || record "$ACTION" "" "refused: $FAILED"
    forget_unserved
    [ -z "$FAILED" ] && [ -n "$begun" ] || return 0
    printf '\nFAIL: interrupted before release %s served. %s\nNext: make %s again\n' \
        "$RELEASE" "$begun" "$(basename "$0" .sh)" >&8
    [ -z "$ACTION" ] || record "$ACTION" "" "interrupted"
}

# An engine that ends in mid-change can be asked nothing; once it runs, it starts what served again.
has_lost_engine() {
    ! "$DOCKER" info >/dev/null 2>&1 || return 1
    FAILED="the container engine ended before release $RELEASE served"
    printf '\nFAIL: %s, or does not answer. Once it runs, what served before serves again.\nNext: make docker-engine (or systemctl start docker), then make %s again\n' \
        "$FAILED" "$(basename "$0" .sh)" >&2
}

# --- the change -------------------------------------------------------------------------------------------------------

start_release() { # start_release NUMBER : sets CONTAINER; where it does not become ready, REASON, and returns 1
    local before why
    make_network
    read_links
    before="$(container)"
    # Nobody could write a line for what a power cut ended.
    if [ -n "$TRYING" ]; then
        record "cut off" "$TRYING" "interrupted before it served"
        point trying ""
    fi
    forget_unfinished "$1" "$before"
    if ! is_running "$before" || [ "$(container_label "$before" release)" = "$1" ]; then
        start_alone "$1" ""
    elif why="$(never_beside "$before" "$1")" && [ -n "$why" ]; then
        say note "nobody is answered during the change: $why"
        start_alone "$1" "$before"
    else
        start_beside "$1" "$before"
    fi
}

# What an interrupted change left: containers that neither serve nor stand by.
forget_unfinished() { # forget_unfinished NUMBER BEFORE
    local id number
    for id in $(all_containers); do
        number="$(container_label "$id" release)"
        if [ "$id" = "$2" ] && { [ -n "$CURRENT" ] || is_running "$id"; }; then continue; fi
        if [ -n "$number" ] && [ "$number" = "$CURRENT" ]; then continue; fi
        if [ -n "$number" ] && [ "$number" = "$PREVIOUS" ]; then
            # Cut off after the switch, it still has its models.
            if is_running "$id" && ! "$DOCKER" exec "$id" test -e /tmp/stands-by; then "$DOCKER" restart -t 60 "$id" >/dev/null; fi
            continue
        fi
        "$DOCKER" rm --force "$id" >/dev/null
    done
}

# Imports and loading take all cores for seconds: beside others, those who are being answered come first.
give_shares() { # give_shares SHARES CONTAINER
    "$DOCKER" update --cpu-shares "$1" "$2" >/dev/null 2>&1 || true
}

wake() { # wake NUMBER SHARES : sets CONTAINER, which runs; a link must name it already
    local count
    CONTAINER="$(container_of "$1")"
    if [ -z "$CONTAINER" ]; then
        # Compose takes away what is beyond this number.
        count="$(all_containers | wc -l)" || { REASON="the engine does not say which containers there are"; return 1; }
        compose_release "$1" up --no-start --no-recreate --scale "cask=$((count + 1))" cask \
            >"$LOG" 2>&1 </dev/null || { refused_by_engine; return 1; }
        CONTAINER="$(container_of "$1")"
        [ -n "$CONTAINER" ] || { refused_by_engine; return 1; }
    fi
    give_shares "$2" "$CONTAINER"
    "$DOCKER" start "$CONTAINER" >/dev/null 2>"$LOG" || { refused_by_engine; return 1; }
}

restarts_of() { "$DOCKER" inspect -f '{{.RestartCount}}' "$1" 2>/dev/null || echo 0; }

start_alone() { # start_alone NUMBER BEFORE : BEFORE ends first; empty where nothing serves
    local began
    began="$(engine_seconds)"
    [ -z "$2" ] || hold_signals STOPPING=yes
    if [ -n "$2" ] && has_edge_folder "$2"; then
        CONTAINER="$2"
        point previous "$(container_label "$2" release)" current "$1"
        "$DOCKER" restart -t 60 "$2" >/dev/null
    else
        [ -z "$2" ] || "$DOCKER" stop -t 60 "$2" >/dev/null
        CONTAINER=""
        point current "$1"
    fi
    wake "$1" "$FULL_SHARES" && wait_ready "$began" "$(restarts_of "$CONTAINER")" && judge_answers && is_wanted && need_edge "$1" && verify_edge "$1" || return 1
    record "$ACTION" "$1" "$RESULT"
    [ -z "$STOPPING" ] || say note "interrupted too late: it serves already (back: make rollback ENV=$ENV)"
    UNSERVED=""
    if [ -z "$2" ] || has_edge_folder "$2"; then
        forget_others "$1" "$PREVIOUS" "$(container_label "${2:-none}" release)"
    else
        "$DOCKER" rm "$2" >/dev/null
    fi
    heed_signals
    start_monitoring "$1"
}

start_beside() { # start_beside NUMBER BEFORE : sets OLD for as long as that one serves
    local began from
    OLD="$2"
    from="$(container_label "$2" release)"
    began="$(engine_seconds)"
    CONTAINER="$2"
    point trying "$1"
    wake "$1" "$STARTING_SHARES" && wait_ready "$began" "$(restarts_of "$CONTAINER")" && judge_answers || return 1
    give_shares "$FULL_SHARES" "$CONTAINER"
    hold_signals
    need_edge "$1" || { heed_signals; return 1; }
    say change "it is ready and right; the old one finishes what it has"
    point previous "$from" current "$1" trying ""
    if ! verify_edge "$1"; then
        point current "$from" previous "$PREVIOUS"
        heed_signals
        return 1
    fi
    record "$ACTION" "$1" "$RESULT"
    OLD="" UNSERVED=""
    # It sees that it is no longer named, finishes, and stands by without its models.
    "$DOCKER" restart -t 60 "$2" >/dev/null
    forget_others "$1" "$from"
    heed_signals
    start_monitoring "$1"
}

forget_others() { # forget_others NUMBER… : all containers of other releases
    local id number
    for id in $(all_containers); do
        number="$(container_label "$id" release)"
        case " $* " in *" $number "*) ;; *) "$DOCKER" rm --force "$id" >/dev/null ;; esac
    done
}

start_monitoring() { # start_monitoring NUMBER
    has_monitoring "$1" || return 0
    local services=(prometheus) ranges
    if compose_file "$1" | grep -q '^  grafana:'; then services+=(grafana); fi
    ranges="$(compose_file "$1" | sed -nE "s/^ *cask.ranges: ['\"]?([0-9a-fA-F.:/,]*)['\"]?\$/\1/p")"
    if [ -n "$ranges" ]; then
        make_monitoring_network "$ranges" || {
            say note "without Prometheus: the engine gives no network $ranges any more ($REASON): make up MONITORING=1"
            return 0
        }
    elif is_our_monitoring_network; then
        # Compose makes the one of a release of an earlier Cask.
        forget_monitoring
    fi
    compose_release "$1" up -d --no-deps "${services[@]}" >"$LOG" 2>&1 </dev/null || { refused_by_engine; return 1; }
    join_monitoring
}

# What was started beside OLD and does not come to serve; a release that stood by stands by again.
forget_tried() {
    local tried="${CONTAINER:-}"
    CONTAINER="$OLD"
    point trying "" >/dev/null 2>&1 || true
    if [ -z "$tried" ] || [ "$tried" = "$OLD" ]; then tried="$(container_of "${RELEASE:-none}")"; fi
    if [ -n "$tried" ] && [ "$tried" != "$OLD" ]; then
        if [ -n "$PREVIOUS" ] && [ "$(container_label "$tried" release)" = "$PREVIOUS" ]; then
            give_shares "$FULL_SHARES" "$tried"
            "$DOCKER" restart -t 10 "$tried" >/dev/null 2>&1 || true
        else
            "$DOCKER" rm --force "$tried" >/dev/null 2>&1 || true
        fi
    fi
}

# Takes what does not serve away, and starts what served before where that has been stopped. Always ends with status 1.
restore_release() { # restore_release FAILED BEFORE : BEFORE is empty where there was nothing
    local reason="$REASON" next="mend what it names, then: make up ENV=$ENV" said="" old
    hold_signals
    if has_lost_engine; then
        LEFT=yes
        [ -z "${STAGE:-}" ] || rm -rf "$STAGE"
        exit 1
    fi
    STOPPING=""
    if [ -n "${CONTAINER:-}" ] && [ "$CONTAINER" != "$OLD" ]; then
        printf '\n' >&2
        # Started again and again, it says the same again and again.
        "$DOCKER" logs --tail 15 "$CONTAINER" 2>&1 | awk '!seen[$0]++ {print "    " $0}' >&2
        case "$reason" in
            # It says why itself; the log says the same.
            *": failed: "* | *interrupted*) ;;
            *) said="$("$DOCKER" logs --tail 15 "$CONTAINER" 2>&1 | last_reason)" ;;
        esac
        reason="$reason${said:+: $said}"
    fi
    if [ -z "$2" ]; then
        UNSERVED=""
        fail 1 "needs a ready container, found that $reason (above: the end of its log); nothing served before." \
            "$next (make logs shows all of it, make down clears it away)"
    fi
    if [ -n "$OLD" ]; then
        forget_tried
        forget_unserved
        OLD=""
        fail 1 "release $1 does not serve, for ${reason%.}. $(release_words "$2") serves on." "$next"
    fi
    say restore "$(release_words "$2")"
    old="$(container_of "$2")"
    if [ -n "$old" ] && ! has_edge_folder "$old"; then
        "$DOCKER" rm --force --volumes "$EDGE" >/dev/null 2>&1 || true
        forget_others "$2"
        forget_unserved
        "$DOCKER" start "$old" >/dev/null
        CONTAINER="$old"
    else
        CONTAINER="$old"
        point current "$2" previous ""
        forget_others "$2"
        forget_unserved
    fi
    # Short for the new one may be too short for what is known to work.
    [ "$WAIT_SECONDS" -ge 180 ] || WAIT_SECONDS=180
    if wait_ready "$(engine_seconds)" "$(restarts_of "$old")" && { ! has_edge_folder "$old" || need_edge "$2"; }; then
        fail 1 "release $1 does not serve, for ${reason%.}. $(release_words "$2") serves again." "$next"
    fi
    fail 1 "release $1 does not serve, for ${reason%.}. Nor does $(release_words "$2") any more, for $REASON." "make logs; $next"
}
