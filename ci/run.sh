#!/usr/bin/env bash
# One stage of a pipeline of yours, on a Debian 12 runner with root and Docker: ci/run.sh test|image|gate|bundle|deploy
# The recipes beside it call it: Jenkinsfile, github.yml, gitlab.yml. Copy one to where your server looks for it.
set -eu -o pipefail
cd "$(dirname "$0")/.."

PROFILE="${PROFILE:-smoke}"                 # of the load test: docs/loadtest.md
PORT="${PORT:-8099}"                        # where the image serves while it is tested
SITE="${SITE:-}"                            # deploy: user@host, which ssh reaches with a key
SITE_KEY="${SITE_KEY:-}"                    # deploy, the first time: bundle_key.pub, as that site has it already afterwards
export COMPOSE_PROJECT_NAME="${COMPOSE_PROJECT_NAME:-cask-ci}"

gate() ( # the image serves, answers right, and keeps the SLO under load; else the status is not 0
    export ENV=staging PORT LISTEN_HOST=127.0.0.1
    trap 'make down VOLUMES=yes' EXIT
    make up BUILD=no
    make smoke
    LOADTEST_TOKEN="$(make shell COMMAND='flask token create loadtest --scope predict --scope admin --json' |
        sed -n 's/^ *"token": "\(cask_[0-9a-f_]*\)".*/\1/p')"
    export LOADTEST_TOKEN
    requirements/install.sh loadtest
    # By itself, for its exit status: through the Makefile each failure is 2.
    .venv/bin/python -m loadtest run --profile "$PROFILE"
)

deploy() {
    local bundle
    [ -n "$SITE" ] || { printf 'FAIL: needs SITE=user@host, found none.\nNext: set it in your pipeline\n' >&2; exit 2; }
    bundle="$(ls -t build/bundle/cask-*.tar | head -n 1)"
    scp -q "$bundle" build/bundle/install.sh ${SITE_KEY:+"$SITE_KEY"} "$SITE:"
    # Checked there before anything is touched; what serves goes on serving where the new release does not start.
    ssh "$SITE" sudo bash install.sh "${bundle##*/}" ${SITE_KEY:+--key "${SITE_KEY##*/}"} --yes
}

case "${1:-}" in
    test) make docker-engine base-image check test ;;
    image) make image ;;
    gate) gate ;;
    bundle) make bundle BUILD=no ;;
    deploy) deploy ;;
    *) printf 'FAIL: needs test, image, gate, bundle or deploy, found «%s».\nNext: ci/run.sh test\n' "${1:-}" >&2; exit 2 ;;
esac
