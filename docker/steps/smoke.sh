#!/usr/bin/env bash
# Send the sample images to the running server, in a container or not, and check labels and boxes: `make smoke`.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

URL="${URL:-}"                              # another server than the one of ENV on this machine
CA_FILE="${CA_FILE:-}"                      # the authority of that server's certificate, where this machine does not know it
SMOKE_TOKEN="${SMOKE_TOKEN:-}"              # a token for it; for this machine's own a short-lived one is made

choose_environment
load_settings

# A token for five minutes, made where the server keeps its tokens: in the container, or here for `make serve`.
make_token() {
    local words='token create smoke --internal --json'
    choose_docker
    if [ -n "$DOCKER" ] && CONTAINER="$(container 2>/dev/null)" && is_running "$CONTAINER"; then
        # shellcheck disable=SC2086  # words are to be split
        "$DOCKER" exec "$CONTAINER" python -m app.cli $words
    elif [ -x .venv/bin/python ]; then
        # shellcheck disable=SC2086
        .venv/bin/python -m app.cli $words
    fi | sed -n 's/^ *"token": "\(cask_[0-9a-f_]*\)".*/\1/p'
}

if [ -z "$SMOKE_TOKEN" ] && [ -z "$URL" ] && [ "$(setting AUTHENTICATION)" != off ]; then
    SMOKE_TOKEN="$(make_token)" || fail 1 "needs a token for the smoke test, could not make one." "make smoke SMOKE_TOKEN=cask_…"
fi
export SMOKE_TOKEN
SMOKE_CERTIFICATE=""
if [ -z "$URL" ]; then
    host="$LISTEN_HOST"
    case "$host" in 0.0.0.0 | '') host=127.0.0.1 ;; ::) host='[::1]' ;; *:*[!]]) host="[$host]" ;; esac
    URL="http://$host:${PORT:-8000}"
    inside="http://127.0.0.1:${PORT:-8000}"
    if [ "${HTTPS_PORT:-0}" != 0 ]; then
        URL="https://$host:$HTTPS_PORT"
        inside="https://127.0.0.1:$HTTPS_PORT"
        # This machine's own certificate, signed by any authority.
        SMOKE_CERTIFICATE="$TLS_CERTIFICATE"
    fi
fi
for python in .venv/bin/python python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
        SMOKE_HOST="$SERVER_NAME" SMOKE_CERTIFICATE="$SMOKE_CERTIFICATE" SMOKE_CA_FILE="${CA_FILE:-}" exec "$python" docker/smoke.py "$URL"
    fi
done
# No Python on this machine: the container has one.
need_engine
need_container
exec "$DOCKER" exec -e "SMOKE_HOST=$SERVER_NAME" -e "SMOKE_CERTIFICATE=${SMOKE_CERTIFICATE:+/edge/certificate}" \
    -e SMOKE_TOKEN "$CONTAINER" python docker/smoke.py "${inside:-$URL}"
