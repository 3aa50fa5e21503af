#!/usr/bin/env bash
# Send load from containers: one that plans and judges, and WORKERS that send. Ends with the verdict's exit status.
#
#   docker/steps/loadtest.sh [OPTION…]     the options of `python -m loadtest run`
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

WORKERS="${WORKERS:-2}"                     # each wants a core of its own
LOADTEST_IMAGE="${LOADTEST_IMAGE:-cask-loadtest:latest}"
NETWORK="${NETWORK:-default}"               # of the build; host: where containers reach no package mirror
JOIN_PORT="${JOIN_PORT:-}"                  # where workers meet, on loopback; default: one that is free

choose_environment

# --- preflight: touches nothing ---------------------------------------------------------------------------------------

case "$WORKERS" in
    '' | 0* | *[!0-9]*) fail 2 "needs WORKERS to be a number from 1, found «$WORKERS»." "make loadtest-docker WORKERS=2" ;;
esac
need_engine
need_buildkit
need_base_image

# --- from here on, something changes ----------------------------------------------------------------------------------

docker/steps/wheels.sh loadtest
log="build/loadtest-image.log"
revision="$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"
DOCKER_BUILDKIT=1 "$DOCKER" build \
    --build-arg "BASE_IMAGE=$BASE_IMAGE" \
    --build-arg "REVISION=$revision" \
    --file docker/loadtest.Dockerfile \
    --network "$NETWORK" \
    --progress plain \
    --tag "$LOADTEST_IMAGE" \
    . >"$log" 2>&1 || {
    sed -e '/^#[0-9]* ERROR/,$d' -e 's/^#[0-9]* [0-9.]* //' "$log" | grep -v '^$' | tail -n 20 | sed 's/^/    /' >&2
    fail 2 "needs every step of docker/loadtest.Dockerfile to succeed, found one that did not (above: the end of $log)." \
        "mend what it names, then the same command again"
}
say image "$LOADTEST_IMAGE, $("$DOCKER" image inspect -f '{{.Size}}' "$LOADTEST_IMAGE" | awk '{printf "%.0f MB", $1 / 1e6}')"

results="$PWD/loadtest/results"
name="$ENV-docker-$(date +%Y%m%d-%H%M%S)-$$"
mkdir -p "$results/$name"
port="$JOIN_PORT"
while [ -z "$port" ]; do
    # From the range that the kernel leaves to servers.
    port=$((20000 + RANDOM % 10000))
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then port=""; fi
done

# Settings given to this command; others come from env/, which is mounted. The host's network, so that an address means
# the same in here and outside, and the guard's answer holds.
options=(--network host --user "$(id -u):$(id -g)" --read-only --tmpfs /tmp --cap-drop ALL
    --security-opt no-new-privileges --volume "$results:$results" --volume "$(realpath "$ENV_DIR"):/app/env:ro" --env "ENV=$ENV")
# Scenarios of plugins, and those of SCENARIO with what lies beside them, under the paths that they have out here.
if [ -d "${PLUGINS_DIR:-plugins}" ]; then options+=(--volume "$(realpath "${PLUGINS_DIR:-plugins}"):/app/plugins:ro"); fi
given=() scenario=""
for each in "$@"; do
    case "$each" in
        --scenario=* | --replay=*)
            paths=""
            for path in ${each#--*=}; do
                [ -f "$path" ] || fail 2 "needs SCENARIO and REPLAY to name files, found «$path», which is none." "make loadtest-docker SCENARIO=mine.py"
                path="$(realpath "$path")"
                paths="$paths $path"
                options+=(--volume "$(dirname "$path"):$(dirname "$path"):ro")
            done
            each="${each%%=*}=${paths# }"
            case "$each" in --scenario=*) scenario="${paths# }" ;; esac
            ;;
    esac
    given+=("$each")
done
for setting in PORT SERVER_NAME LOADTEST_HOST LOADTEST_ALLOW LOADTEST_MAX_RPS LOADTEST_TOKEN; do
    if [ -n "${!setting:-}" ]; then options+=(--env "$setting"); fi
done

workers=()
stop() {
    if [ "${#workers[@]}" -gt 0 ]; then "$DOCKER" rm --force "${workers[@]}" >/dev/null 2>&1 || true; fi
    # Where nothing came to be planned, nothing is kept.
    rmdir "$results/$name" 2>/dev/null || true
}
trap stop EXIT
for number in $(seq "$WORKERS"); do
    workers+=("$("$DOCKER" run --detach --name "cask-$name-$number" "${options[@]}" "$LOADTEST_IMAGE" \
        loadtest worker --master "127.0.0.1:$port" --scenario "$scenario" --confirm "$ENV")")
done
say workers "$WORKERS, named cask-$name-1 and on"

terminal=()
if [ -t 1 ] && [ -t 0 ]; then terminal=(--interactive --tty); fi
status=0
"$DOCKER" run --rm --name "cask-$name" "${terminal[@]}" "${options[@]}" "$LOADTEST_IMAGE" \
    loadtest run --processes "$WORKERS" --join "127.0.0.1:$port" --folder "$results/$name" "${given[@]}" || status=$?
if [ "$status" = 3 ]; then
    for worker in "${workers[@]}"; do "$DOCKER" logs --tail 3 "$worker" 2>&1 | sed 's/^/    /' >&2; done
fi
exit "$status"
