#!/usr/bin/env bash
# Put env/*.env, secrets and certificates into force without losing a request. In a container: a release of the same image,
# beside the one that serves; where nothing but the certificate changed, that alone.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

choose_environment
choose_docker
if [ -z "$DOCKER" ] || ! CONTAINER="$(container 2>/dev/null)" || ! is_running "$CONTAINER"; then
    exec .venv/bin/python apache/reload.py
fi
CASK_IMAGE="$("$DOCKER" inspect -f '{{.Config.Image}}' "$CONTAINER")" BUILD=no ASKED_FOR=reload exec docker/steps/up.sh
