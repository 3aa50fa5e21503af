#!/usr/bin/env bash
# The app with the engine and the jobs' worker beside it: pages and views change at once, models stay in memory.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=$ROOT/.venv/bin/python

cd "$ROOT"
# As apache/serve.sh: root only hands over.
if [ "$(id -u)" = 0 ]; then exec "$PYTHON" apache/hand_over.py "${SERVICE_USER:-www-data}" bash "$ROOT/app/dev.sh" "$@"; fi
export ENV=${ENV:-dev} ENGINE_MODE=service
"$PYTHON" -m app.cli config check >/dev/null || exit 2
mkdir -p "$("$PYTHON" -m app.cli config get STATE_DIR)"

"$PYTHON" -m app.engine --with-parent &
ENGINE=$!
JOBS_WORKER=
if [ "$("$PYTHON" -m app.cli config get JOBS)" = on ]; then
    "$PYTHON" -m app.jobs --with-parent &
    JOBS_WORKER=$!
fi
trap 'kill "$ENGINE" $JOBS_WORKER 2>/dev/null || true' EXIT
FLASK_DEBUG=1 "$PYTHON" -m app.plugins.development
