#!/usr/bin/env bash
# Start Cask in a container: `make up ENV=prod`. Builds what is missing, checks the new release before anything is touched,
# starts it where it differs from what runs, waits until it is ready, prints the address. What does not become ready is
# taken away again, and what served before is started again.
# shellcheck source-path=SCRIPTDIR source=common.sh source=release.sh source=changeover.sh
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/release.sh"
. "$(dirname "$0")/changeover.sh"

BUILD="${BUILD:-yes}"                       # no: start the image that is there, such as one that was brought here
WAIT_SECONDS="${WAIT_SECONDS:-180}"

choose_environment
load_settings

# --- preflight: touches nothing ---------------------------------------------------------------------------------------

need_engine
[ -w . ] || fail 2 "needs to write $PWD/build, found that «$(id -un)» may not, or a file system that is read-only." "mount it for writing, or call it as $(stat -c %U .)"
take_turn "${ASKED_FOR:-deploy}"
need_choices
choose_compose
case "$GPUS" in
    '' | all) ;;
    *[!0-9]* | 0*) fail 2 "needs GPUS to be all or a number from 1, found «$GPUS»." "make up ENV=$ENV GPUS=all" ;;
esac
if [ "$BUILD" = no ]; then
    "$DOCKER" image inspect "$IMAGE" >/dev/null 2>&1 ||
        fail 2 "needs the image $IMAGE, found none." "docker load -i that-image.tar, or: make up ENV=$ENV"
else
    need_base_image
fi
before="$(container)"
from=""
if [ -n "$before" ]; then
    from="$(container_label "$before" release)"
    if [ -n "$from" ] && ! has_release "$from"; then from=""; fi
fi

still_serves() { # for the end of a refusal
    if is_running "$before"; then
        printf ' Nothing was touched: %s serves on.' "$([ -n "$from" ] && release_words "$from" || echo 'the container that runs')"
    fi
}

need_ports() {
    local published name port host
    # Of another machine, its engine will say it.
    [ -z "$ENGINE_HOST" ] || return 0
    published="$({ "$DOCKER" port "$EDGE"; [ -z "$before" ] || "$DOCKER" port "$before"; } 2>/dev/null || true)"
    for name in PORT HTTPS_PORT; do
        port="${!name:-0}"
        case "$port" in 0 | *[!0-9]* | ??????*) continue ;; esac
        host="$LISTEN_HOST"
        case "$host" in 0.0.0.0 | '' | :: | '[::]') host=127.0.0.1 ;; esac
        if ! grep -q ":$port\$" <<<"$published" && (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then
            fail 2 "needs port $port, found it taken by another program.$(still_serves)" \
                "make up ENV=$ENV $name=$((port + 1)) (make stop ends a \`make serve\`)"
        fi
    done
}
need_ports

# --- from here on, something changes ----------------------------------------------------------------------------------

docker/steps/secrets.sh
make_network
if [ -n "$MONITORING" ]; then
    "$DOCKER" image inspect "$PROMETHEUS_IMAGE" >/dev/null 2>&1 || docker/steps/monitoring-image.sh
    if ! "$DOCKER" image inspect "$GRAFANA_IMAGE" >/dev/null 2>&1 && ! "$DOCKER" pull -q "$GRAFANA_IMAGE" >/dev/null 2>&1; then
        say grafana "left out: there is no image $GRAFANA_IMAGE here, and no registry that has it (docker load, or GRAFANA_IMAGE=)"
    else
        docker/steps/secrets.sh grafana_password
    fi
    make_monitoring_network "$MONITORING_SUBNET" ||
        fail 2 "needs a network for Prometheus${MONITORING_SUBNET:+ with MONITORING_SUBNET=$MONITORING_SUBNET}, found that the engine makes none: $(tail -n 1 <<<"$REASON").$(still_serves)" \
            "${MONITORING_SUBNET:+leave MONITORING_SUBNET away, and the engine takes a free range, or: }docker network prune"
    MONITORING_SUBNET="$(monitoring_ranges)" others="$(setting METRICS_ALLOW)"
    export PROMETHEUS_IMAGE GRAFANA_IMAGE MONITORING_SUBNET MONITORING_TARGETS="../build/monitoring/$PROJECT"
    export MONITORED_BY="${others:+$others,}$MONITORING_SUBNET"
fi
if [ "$BUILD" != no ]; then docker/steps/build.sh; fi

mkdir -p build
write_given_settings
write_gpus
write_monitoring
CASK_IMAGE="$(revision_tag "$IMAGE")"
stage_release
digest="$(release_digest)"
make_edge_folder
place_certificate

began=$SECONDS
if [ -n "$from" ] && [ "$(container_label "$before" digest)" = "$digest" ]; then
    RELEASE="$from" RESULT="serves, unchanged$PLACED"
    say unchanged "$(release_words "$from"), ENV=$ENV"
else
    make_release "$digest"
    [ -z "$before" ] || need_room "$before" "$RELEASE"
    reason="$(check_release "$RELEASE")" || fail 2 "$reason$(still_serves)" "mend what it names, then: make up ENV=$ENV"
    served="$(environment_of_service)"
    say start "$(release_words "$RELEASE") as project «$PROJECT», ENV=$ENV"
    [ "${served:-$ENV}" = "$ENV" ] || say environment "was $served; tokens, jobs and secrets stay"
fi
began=$SECONDS
if ! start_release "$RELEASE"; then
    # There is nothing else to go back to by itself: make rollback says what is kept.
    [ "$RELEASE" != "$from" ] || from=""
    restore_release "$RELEASE" "$from"
fi
note_environment
[ -n "$MONITORING" ] || forget_monitoring
prune_releases

host="$LISTEN_HOST"
case "$host" in 0.0.0.0 | '') host="${ENGINE_HOST:-127.0.0.1}" ;; esac
address="http://$host:${PORT:-8000}"
if [ "${HTTPS_PORT:-0}" != 0 ]; then address="https://$SERVER_NAME:$HTTPS_PORT"; fi
say ready "$address  (ENV=$ENV, after $((SECONDS - began)) s${ENGINE_HOST:+, on $ENGINE_HOST})"
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
