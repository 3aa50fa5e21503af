#!/usr/bin/env bash
# make example NAME=read-text: take an example into the store, let a running service take it in, and say how to ask it.
#
# It asks the example's first file of examples/. Where a screen is there, the page with all models is opened too.
set -eu

cd "$(dirname "$0")/../.."
NAME=${1:-}
PYTHON=.venv/bin/python
if [ -z "$NAME" ] || [ ! -f "examples/models/$NAME/model.py" ]; then
    echo "FAIL: NAME=$NAME is no example. There are: $(dirname examples/models/*/model.py | xargs -n 1 basename | xargs)." >&2
    exit 2
fi

if "$PYTHON" -m app.cli model list --json | grep -q "\"key\": \"$NAME@1\""; then
    echo "$NAME@1 is in the store already"
else
    "$PYTHON" -m app.cli model add --code "examples/models/$NAME" --name "$NAME" --version 1
fi

URL=$("$PYTHON" -c 'from app import config; from app.cli import service; print(service.local(config.resolve()).url)')
ADDRESS=$URL/v1/models/$NAME/predict
ASKED=$(find "examples/models/$NAME/examples" -name "01.*" ! -name "*.expected.json" | head -1)
TOKEN=
if [ "$("$PYTHON" -m app.cli config get AUTHENTICATION)" = required ]; then TOKEN="-H 'X-Api-Token: cask_…' "; fi
case "$ASKED" in
    *.json) COMMAND="curl $TOKEN-H 'Content-Type: application/json' -d @$ASKED $ADDRESS" ;;
    *) COMMAND="curl $TOKEN-F photo=@$ASKED $ADDRESS" ;;
esac
if ! curl --silent --fail --insecure --max-time 5 --output /dev/null "$URL/livez"; then
    printf 'It serves from the next start on: make serve. Then:\n  %s\n' "$COMMAND"
    exit
fi
"$PYTHON" -m app.cli model promote "$NAME" 1
printf 'Ask it:\n  %s\n  In a browser: %s/models\n' "$COMMAND" "$URL"
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && command -v xdg-open >/dev/null; then xdg-open "$URL/models" >/dev/null 2>&1 & fi
