#!/usr/bin/env bash
# Stop what `make serve` started; requests in flight are finished first.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${CASK_PYTHON:-$ROOT/.venv/bin/python}

cd "$ROOT"
[ -x "$PYTHON" ] || { echo "Nothing runs here: Cask was never installed."; exit 0; }
STATE_DIR=$("$PYTHON" -m app.config get STATE_DIR)
SECONDS_AT_MOST=$(( $("$PYTHON" -m app.config get SERVER_SHUTDOWN_SECONDS) + 15 ))
PID_FILE=$STATE_DIR/run/httpd/httpd.pid

if [ ! -f "$PID_FILE" ] || ! kill -0 "$(cat "$PID_FILE")" 2>/dev/null; then
    echo "Nothing runs with $STATE_DIR."
    exit 0
fi
PID=$(cat "$PID_FILE")
# SIGWINCH finishes requests in flight; SIGTERM would drop them.
kill -WINCH "$PID"
for _ in $(seq $((SECONDS_AT_MOST * 10))); do
    kill -0 "$PID" 2>/dev/null || { echo "Stopped."; exit 0; }
    sleep 0.1
done
echo "FAIL: process $PID has not ended after $SECONDS_AT_MOST s; end it with: kill -TERM $PID" >&2
exit 1
