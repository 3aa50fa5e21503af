#!/usr/bin/env bash
# Process 1 of a release on a container host: stands by until the edge's folder names this release, then becomes the service.
#
# A release that serves and is not ready three times in a row gives its place to the one before, which stands by.
# After a power cut the engine starts both; nobody has to be there.
set -eu

FOLDER="${EDGE_FOLDER:-/edge}"
MOST_TRIES=3
READY_SECONDS=180
MARK="${STANDS_BY:-/tmp/stands-by}"           # docker/health.py: well, and asks for nothing

tell() {
    printf '{"time": "%s", "level": "%s", "logger": "cask.start", "role": "start", "pid": %s, "message": "%s"}\n' \
        "$(date -u +%FT%T.%3NZ)" "$1" $$ "$2"
}

named() { # named LINK : the number of the release that it names
    local text
    text="$(readlink "$FOLDER/$1" || true)"
    printf '%s' "${text%%/*}"
}

is_wanted() { [ "$(named current)" = "$CASK_RELEASE" ] || [ "$(named trying)" = "$CASK_RELEASE" ]; }

stand_by() {
    is_wanted && return 0
    : >"$MARK"
    # shellcheck disable=SC2034 # it only counts the seconds
    until is_wanted; do
        sleep 1 &
        wait $! || true
    done
    rm -f "$MARK"
}

fall_back() { # to the one before, for all who read the links
    tell error "release $CASK_RELEASE was not ready $MOST_TRIES times; release $(named previous) serves again"
    printf '%s\tfall back\t%s\t-\t%s\t%s\n' "$(date -u +%FT%TZ)" "$(named previous)" "stand-by@$(hostname)" \
        "release $CASK_RELEASE was not ready $MOST_TRIES times" >>"$FOLDER/history"
    rm -f "$FOLDER/tries-$CASK_RELEASE"
    mv -T "$FOLDER/previous" "$FOLDER/current"
}

count_try() {
    local tries file="$FOLDER/tries-$CASK_RELEASE"
    tries="$(cat "$file" 2>/dev/null || echo 0)"
    if [ "$tries" -ge "$MOST_TRIES" ] && [ -n "$(named previous)" ]; then
        fall_back
        return 1
    fi
    echo $((tries + 1)) >"$file"
}

# Once ready, the count is over. What is never ready ends, and the engine starts it again.
watch_start() {
    if python -I docker/health.py "$READY_SECONDS" >/dev/null 2>&1; then
        rm -f "$FOLDER/tries-$CASK_RELEASE"
    elif [ -n "$(named previous)" ]; then
        tell error "not ready after $READY_SECONDS s: it starts again"
        kill -WINCH 1
    fi
}

trap 'exit 0' WINCH TERM INT
while true; do
    stand_by
    if [ "$(named trying)" = "$CASK_RELEASE" ]; then break; fi
    if count_try; then
        watch_start &
        break
    fi
done
exec bash apache/serve.sh
