#!/usr/bin/env bash
# Start Cask under Apache in the foreground: `make serve`, and process 1 of the container.
#
#   apache/serve.sh            serve until SIGTERM (at once) or SIGWINCH (after requests in flight)
#   apache/serve.sh --check    render and test the configuration, start nothing
set -eu

# Few programs are started on the way: each takes a millisecond or two of what callers wait for.
HERE=. && [[ $0 != */* ]] || HERE=${0%/*}
ROOT=$(cd "$HERE/.." && pwd)
PYTHON=${CASK_PYTHON:-$ROOT/.venv/bin/python}

# As app/config/sources.py finds it. Before Apache writes the log, lines of ours are to be objects too.
is_json() { [ "${LOG_FORMAT:-$(LC_ALL=C sed -n '1s/^\xef\xbb\xbf//; s/\r$//; s/^LOG_FORMAT=//p' env/local.env "env/${ENV:-dev}.env" 2>/dev/null | head -n 1)}" = json ]; }
tell() { # tell LEVEL WORDS
    if [ "${CASK_CHECK:-}" = yes ] || ! is_json; then echo "$2"; return; fi
    local words="${2#FAIL: }"
    words="${words//[[:cntrl:]]/ }" words="${words//\\/\\\\}" words="${words//\"/\\\"}"
    printf '{"time": "%s", "level": "%s", "logger": "cask.start", "role": "start", "pid": %s, "message": "%s"}\n' \
        "$(date -u +%FT%T.%3NZ)" "$1" $$ "$words"
}
fail() { tell error "FAIL: $1" >&2; exit 2; }

# Who asks for a check reads what it says; what ends a start goes to the log.
if [ "${1:-}" = --check ]; then export CASK_CHECK=yes; fi
if [ "${1:-}" = --help ]; then sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0; fi
cd "$ROOT"

IS_TERMINAL=yes
if [ ! -t 0 ] && [ ! -t 1 ]; then IS_TERMINAL=no; fi
# Until Apache listens to it, SIGWINCH would be ignored, and a stop during the start would be lost.
if [ "$IS_TERMINAL" = no ]; then trap 'tell info "Stopped during the start."; exit 0' WINCH; fi
# What asks for a reload would end us, until Apache listens to it; it starts with the newest settings anyway.
if [ "$IS_TERMINAL" = no ]; then trap '' HUP USR1; fi

# ── Preflight: touches nothing ───────────────────────────────────────────────────────────────────────────────────────
[ -x "$PYTHON" ] || fail "needs $PYTHON, found nothing. Run requirements/install.sh, or make serve."
command -v apache2 >/dev/null || command -v httpd >/dev/null || fail "needs Apache, found none. Run requirements/install.sh."
# Root only hands over, to SERVICE_USER or www-data; from here on we are that user, and nothing below needs to be root.
if [ "$EUID" = 0 ]; then exec "$PYTHON" apache/hand_over.py "${SERVICE_USER:-www-data}" bash "$ROOT/apache/serve.sh" "$@"; fi

# ── From here on, files are written, below STATE_DIR only ────────────────────────────────────────────────────────────
umask 022
APACHECTL=$("$PYTHON" apache/configure.py $$) || exit 2
STATE_DIR=${APACHECTL%/run/httpd/apachectl}
# Threads would else keep freed memory of their own, by arenas and by small pieces (glibc's tcache) that lie between the
# large ones and keep them from being joined: 0 pieces would take the arena's lock too often.
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-1} GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.tcache_count=1}
# Libraries keep caches below HOME; the service user's own may be missing or root's.
export HOME=$STATE_DIR
if [ "${1:-}" = --check ]; then echo "The configuration is right: ${APACHECTL%/*}/httpd.conf"; exit 0; fi

# Says the address once a prediction has succeeded; the server below does not wait for it.
announce() { if [ "${CASK_ANNOUNCE:-yes}" = yes ]; then "$PYTHON" apache/announce.py & fi; }

# With LOG_FILE every line goes there too, and to where it would have gone. The keeper ends with the last who writes.
KEPT=${APACHECTL%/*}/log-file
if [ -f "$KEPT" ]; then
    { read -r LOG_FILE; read -r LOG_BYTES; read -r LOG_COUNT; } <"$KEPT"
    exec > >(exec "$PYTHON" -IS apache/keep_log.py "$LOG_FILE" "$LOG_BYTES" "$LOG_COUNT") 2>&1
elif ! { : >>/proc/self/fd/1 && : >>/proc/self/fd/2; } 2>/dev/null; then
    # Apache opens its output anew, by name; that of another user, such as root's terminal, it could not open.
    exec > >(trap '' HUP INT TERM WINCH; exec cat) 2>&1
fi

# With LOG_FORMAT=json every line is an object, also those of Apache.
if [ -f "${APACHECTL%/*}/log-mark" ]; then
    CASK_LOG_MARK=$(<"${APACHECTL%/*}/log-mark")
    export CASK_LOG_MARK
    exec > >(exec "$PYTHON" -IS apache/json_lines.py) 2>&1
fi

# Through bash, because the state folder may be mounted noexec.
if [ "$IS_TERMINAL" = no ]; then
    announce
    exec bash "$APACHECTL" start -DFOREGROUND
fi

# A terminal sends SIGWINCH when its window changes size, and for Apache that means: stop. So it gets a session of its
# own, and we pass on what is meant for it: Ctrl-C finishes requests in flight, a second one does not wait for them.
setsid bash "$APACHECTL" start -DFOREGROUND </dev/null &
APACHE=$!
stop() { echo "Stopping; requests in flight are finished. Ctrl-C again to stop at once."; kill -WINCH "$APACHE" 2>/dev/null || true; trap stop_now INT TERM; }
stop_now() { kill -TERM "$APACHE" 2>/dev/null || true; }
trap stop INT TERM
announce
while kill -0 "$APACHE" 2>/dev/null; do wait "$APACHE" && STATUS=0 || STATUS=$?; done
exit "${STATUS:-0}"
