#!/usr/bin/env bash
# Flask's reloader with the engine and the jobs' worker beside it: pages and views change at once, models stay in memory.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=$ROOT/.venv/bin/python

cd "$ROOT"
# As apache/serve.sh: root only hands over.
if [ "$(id -u)" = 0 ]; then exec "$PYTHON" apache/hand_over.py "${SERVICE_USER:-www-data}" bash "$ROOT/app/dev.sh" "$@"; fi
export ENV=${ENV:-dev} ENGINE_MODE=service
"$PYTHON" -m app.cli config check >/dev/null || exit 2
HOST=$("$PYTHON" -m app.cli config get LISTEN_HOST)
PORT=$("$PYTHON" -m app.cli config get PORT)
mkdir -p "$("$PYTHON" -m app.cli config get STATE_DIR)"

"$PYTHON" -m app.engine --with-parent &
ENGINE=$!
JOBS_WORKER=
if [ "$("$PYTHON" -m app.cli config get JOBS)" = on ]; then
    "$PYTHON" -m app.jobs --with-parent &
    JOBS_WORKER=$!
fi
trap 'kill "$ENGINE" $JOBS_WORKER 2>/dev/null || true' EXIT
# The reloader knows what was imported; a plugin.toml is read.
shopt -s nullglob
MANIFESTS=("$("$PYTHON" -m app.cli config get PLUGINS_DIR)"/*/plugin.toml)
EXTRA_FILES=$(IFS=:; echo "${MANIFESTS[*]-}")
"$PYTHON" -m flask --app app.factory run --debug --host "$HOST" --port "$PORT" ${EXTRA_FILES:+--extra-files "$EXTRA_FILES"}
