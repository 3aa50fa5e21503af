#!/usr/bin/env bash
# Start Cask in a container: `make up ENV=prod`. Builds what is missing, waits until it is ready, prints the address.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

BUILD="${BUILD:-yes}"                       # no: start the image that is there, such as one that was brought here
WAIT_SECONDS="${WAIT_SECONDS:-180}"

choose_environment
load_settings

# --- preflight: touches nothing ---------------------------------------------------------------------------------------

need_engine
compose version >/dev/null 2>&1 || compose version
case "$GPUS" in
    '' | all) ;;
    *[!0-9]* | 0*) fail 2 "needs GPUS to be all or a number from 1, found «$GPUS»." "make up ENV=$ENV GPUS=all" ;;
esac
if [ "$BUILD" = no ]; then
    "$DOCKER" image inspect "$IMAGE" >/dev/null 2>&1 ||
        fail 2 "needs the image $IMAGE, found none." "docker load -i that-image.tar, or: make up ENV=$ENV"
elif ! "$DOCKER" image inspect "$BASE_IMAGE" >/dev/null 2>&1 && ! "$DOCKER" pull -q "$BASE_IMAGE" >/dev/null 2>&1; then
    fail 2 "needs the base image $BASE_IMAGE, found neither it nor a registry that has it." "make base-image"
fi
for file in "$ENV_DIR" "$ENV_DIR/$ENV.env" "$ENV_DIR/local.env"; do
    if [ -e "$file" ] && [ -z "$(find "$file" -maxdepth 0 -perm -o=r)" ]; then
        fail 2 "needs $file to be readable by the container's user (10001), found it closed to others." "chmod -R o+rX $ENV_DIR"
    fi
done
if [ -z "$(container)" ] && (exec 3<>"/dev/tcp/127.0.0.1/${PORT:-8000}") 2>/dev/null; then
    fail 2 "needs port ${PORT:-8000}, found it taken by another program." "make up ENV=$ENV PORT=8001 (make stop ends a \`make serve\`)"
fi

# --- from here on, something changes ----------------------------------------------------------------------------------

docker/steps/secrets.sh
if [ -n "$MONITORING" ]; then
    "$DOCKER" image inspect "$PROMETHEUS_IMAGE" >/dev/null 2>&1 || docker/steps/monitoring-image.sh
    if ! "$DOCKER" image inspect "$GRAFANA_IMAGE" >/dev/null 2>&1 && ! "$DOCKER" pull -q "$GRAFANA_IMAGE" >/dev/null 2>&1; then
        say grafana "left out: there is no image $GRAFANA_IMAGE here, and no registry that has it (docker load, or GRAFANA_IMAGE=)"
    else
        docker/steps/secrets.sh grafana_password
    fi
    export PROMETHEUS_IMAGE GRAFANA_IMAGE MONITORING_SUBNET
    export MONITORED_BY="${METRICS_ALLOW:+$METRICS_ALLOW,}$MONITORING_SUBNET" MONITORING_TARGETS="../build/monitoring/$PROJECT"
fi
if [ "$BUILD" != no ]; then docker/steps/build.sh; fi

mkdir -p build
write_given_settings
write_gpus
write_monitoring
say start "$IMAGE as project «$PROJECT», ENV=$ENV"
before="$(container)"
started_at="$(date +%s)"
compose up -d --remove-orphans >build/compose.log 2>&1 || {
    tail -n 10 build/compose.log | sed 's/^/    /' >&2
    fail 1 "needs Compose to start the container; it did not." "mend what it names, then: make up ENV=$ENV"
}
[ -n "$MONITORING" ] || forget_monitoring
need_container
# A container that was there already may have been restarted in its life; only what happens now counts.
restarts_before=0
if [ "$before" = "$CONTAINER" ]; then restarts_before="$("$DOCKER" inspect -f '{{.RestartCount}}' "$CONTAINER")"; fi

give_up() { # give_up REASON
    printf '\n' >&2
    # Started again and again, it says the same again and again.
    "$DOCKER" logs --tail 15 "$CONTAINER" 2>&1 | awk '!seen[$0]++ {print "    " $0}' >&2
    fail 1 "needs a ready container, found one that $1 (above: the end of its log)." \
        "mend what it names, then: make up ENV=$ENV (make logs shows all of it, make down clears it away)"
}

first_exit_status() { # of this start; by now the engine may be starting it again
    # Until the end of this second: the time is cut to seconds, and the container may have ended in this one.
    "$DOCKER" events --since "$started_at" --until "$(($(date +%s) + 1))" --filter "container=$CONTAINER" --filter event=die \
        --format '{{index .Actor.Attributes "exitCode"}}' | head -n 1
}

began=$SECONDS
said=""
while true; do
    read -r state restarts < <("$DOCKER" inspect -f '{{.State.Status}} {{.RestartCount}}' "$CONTAINER")
    if [ "$state" != running ] || [ "$restarts" -gt "$restarts_before" ]; then
        # Otherwise the engine would start it again and again.
        compose stop >/dev/null 2>&1 || true
        give_up "ended with status $(first_exit_status)"
    fi
    if missing="$("$DOCKER" exec "$CONTAINER" python -I docker/health.py 2>&1)"; then break; fi
    [ $((SECONDS - began)) -lt "$WAIT_SECONDS" ] || give_up "is not ready after $WAIT_SECONDS s: $missing"
    if [ "$missing" != "$said" ]; then
        said="$missing"
        say "$((SECONDS - began)) s" "${missing:-starting}"
    fi
    sleep 0.3
done

host="$LISTEN_HOST"
case "$host" in 0.0.0.0 | '') host=127.0.0.1 ;; esac
address="http://$host:${PORT:-8000}"
if [ "${HTTPS_PORT:-0}" != 0 ]; then address="https://$SERVER_NAME:$HTTPS_PORT"; fi
say ready "$address  (ENV=$ENV, after $((SECONDS - began)) s)"
if [ -n "$MONITORING" ]; then
    say prometheus "http://127.0.0.1:${PROMETHEUS_PORT:-9090}"
    if grep -qs grafana "$MONITORING_FILE"; then
        say grafana "http://127.0.0.1:${GRAFANA_PORT:-3000}, user admin, password in $SECRETS_DIR/grafana_password"
    fi
fi
echo "Next: make smoke ENV=$ENV"
if [ "$(setting AUTHENTICATION)" != off ] && [ "$("$DOCKER" exec "$CONTAINER" python -m app.cli token list --json 2>/dev/null)" = "[]" ]; then
    echo "      make shell COMMAND='flask token create NAME'   (nobody has a token yet, so nobody is let in)"
fi
