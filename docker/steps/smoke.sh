#!/usr/bin/env bash
# Send the sample images to the running server, in a container or not, and check labels and boxes: `make smoke`.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

URL="${URL:-}"                              # another server than the one of ENV on this machine

choose_environment
load_settings
if [ -z "$URL" ]; then
    host="$LISTEN_HOST"
    case "$host" in 0.0.0.0 | '') host=127.0.0.1 ;; esac
    URL="http://$host:${PORT:-8000}"
fi
for python in .venv/bin/python python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
        SMOKE_HOST="$SERVER_NAME" exec "$python" docker/smoke.py "$URL"
    fi
done
# No Python on this machine: the container has one.
need_engine
need_container
exec "$DOCKER" exec -e "SMOKE_HOST=$SERVER_NAME" "$CONTAINER" python docker/smoke.py "http://127.0.0.1:${PORT:-8000}"
