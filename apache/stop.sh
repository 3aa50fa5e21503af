#!/usr/bin/env bash
# Stop what `make serve` started; requests in flight are finished first.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${CASK_PYTHON:-$ROOT/.venv/bin/python}

cd "$ROOT"
[ -x "$PYTHON" ] || { echo "Nothing runs here: Cask was never installed."; exit 0; }
STATE_DIR=$("$PYTHON" -m app.cli config get STATE_DIR)
SECONDS_AT_MOST=$(( $("$PYTHON" -m app.cli config get SERVER_SHUTDOWN_SECONDS) + 15 ))
PID_FILE=$STATE_DIR/run/httpd/httpd.pid

# A process that has ended but whose parent has not looked yet counts as ended.
runs() { kill -0 "$1" 2>/dev/null && [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null || echo Z)" != Z ]; }

if [ ! -f "$PID_FILE" ] || ! runs "$(cat "$PID_FILE")"; then
    echo "Nothing runs with $STATE_DIR."
    exit 0
fi
PID=$(cat "$PID_FILE")
# The number stands in a folder of the service user's: as root, we end nothing but an Apache that was started with it.
tr '\0' ' ' <"/proc/$PID/cmdline" | grep -qF -- "-f $STATE_DIR/run/httpd/httpd.conf " ||
    { echo "FAIL: process $PID, which $PID_FILE names, is not this service; nothing was stopped." >&2; exit 1; }
# SIGWINCH finishes requests in flight; SIGTERM would drop them.
kill -WINCH "$PID"
for _ in $(seq $((SECONDS_AT_MOST * 10))); do
    runs "$PID" || { echo "Stopped."; exit 0; }
    sleep 0.1
done
echo "FAIL: process $PID has not ended after $SECONDS_AT_MOST s; end it with: kill -TERM $PID" >&2
exit 1
