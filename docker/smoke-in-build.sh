#!/bin/bash
# Start the real server inside the build, send a real image, stop it as `docker stop` would. Called by docker/Dockerfile.
set -eu

WAIT_SECONDS="${WAIT_SECONDS:-180}"

export ENV=test STATE_DIR=/tmp/state PORT=8000 LISTEN_HOST=127.0.0.1
mkdir -p "$STATE_DIR"
cd /app
bash apache/serve.sh >>/tmp/server.log 2>&1 &
server=$!

give_up() {
    echo "FAIL: $1. The server's last lines:" >&2
    tail -n 40 /tmp/server.log >&2
    exit 1
}

until python docker/health.py 2 >/tmp/health.log 2>&1; do
    kill -0 "$server" 2>/dev/null || give_up "needs a server that stays, found one that ended"
    [ "$SECONDS" -lt "$WAIT_SECONDS" ] || give_up "needs a ready server within $WAIT_SECONDS s, found: $(cat /tmp/health.log)"
done
echo "ready after $SECONDS s"
python docker/smoke.py "http://127.0.0.1:$PORT" || give_up "needs right answers to the sample images"

kill -WINCH "$server"
status=0
wait "$server" || status=$?
[ "$status" -eq 0 ] || give_up "needs a server that stops with status 0, found $status"
echo "stopped after $SECONDS s"
