# Words and look-ups that the steps share; sourced, never run.
# shellcheck shell=bash
set -eu -o pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PROJECT="${COMPOSE_PROJECT_NAME:-cask}"
IMAGE="${CASK_IMAGE:-cask:latest}"
ENV_DIR="${ENV_DIR:-env}"                     # mounted into the container
SECRETS_DIR="${SECRETS_DIR:-secrets}"         # not in git
LOG="build/compose.$PROJECT.log"              # what Compose said last
GIVEN="build/compose.$PROJECT.given.yaml"    # settings given to the command that started it; see write_given_settings
GPUS="${GPUS:-}"                              # all, or how many; empty is none
GPU_FILE="build/compose.$PROJECT.gpus.yaml"
MONITORING="${MONITORING:-}"                  # 1: Prometheus, and Grafana where its image is, beside it
MONITORING_FILE="build/compose.$PROJECT.monitoring"  # which further compose files belong to it; see write_monitoring
MONITORING_SUBNET="${MONITORING_SUBNET:-}"    # of its network; empty: the engine chooses one that is free
PROMETHEUS_IMAGE="${PROMETHEUS_IMAGE:-cask-prometheus:latest}"
GRAFANA_IMAGE="${GRAFANA_IMAGE:-grafana/grafana-oss:11.6.0}"
BASE_IMAGE="${BASE_IMAGE:-debian:bookworm-slim}"
ENGINE_HOST="${ENGINE_HOST:-}"                # where the engine is, with DOCKER_HOST=ssh://…; see open_tunnel
FAILED=""                                     # the reason, once it has been said

say() { printf '  %-12s %s\n' "$1" "$2"; }

fail() { # fail STATUS WHAT NEXT
    printf 'FAIL: %s\nNext: %s\n' "$2" "$3" >&2
    FAILED="$2"
    exit "$1"
}

# The same of what a command can do without: one that an operator needs at night starts nothing by these settings.
note_fault() { # note_fault STATUS WHAT NEXT
    printf 'Note: %s This command goes on without it.\n' "$2" >&2
}

# The last line of a log that says why something ended: plain, or the message of a JSON line of level error or critical.
last_reason() { # last_reason <LOG
    local level='"level": ?"(error|critical)"' message='"message": ?"(([^"\\]|\\.)*)"'
    sed -nE "/^\{/!{/./p}; s/^\{.*$level.*$message.*\$/\\2/p" | sed -E 's/\\(["\\])/\1/g; s/^FAIL: //' | tail -n 1 | cut -c 1-300
}

may_be_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# For what is waited for: bash's SECONDS follow the time of day, which may be set meanwhile.
steady_seconds() {
    local up
    if read -r up _ 2>/dev/null </proc/uptime; then printf '%s' "${up%%.*}"; else printf '%s' "$SECONDS"; fi
}

# --- settings ---------------------------------------------------------------------------------------------------------

SITE_ENV="${SITE_ENV:-}"                      # the environment of a site that install.sh made, noted in SITE_CONF
SITE_CONF="${SITE_CONF:-}"

environment_of_service() { # of the container that serves or served last; nothing where there is none
    local id
    if [ -n "$DOCKER" ] && id="$(container 2>/dev/null)" && [ -n "$id" ]; then
        "$DOCKER" inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$id" 2>/dev/null | sed -n 's/^ENV=//p'
    fi
}

# Sets ENV to dev, test, staging or prod. Where it is not given it is what serves: no `make reload` or `make up` turns
# staging into prod because a word was left out.
choose_environment() {
    if [ -z "${ENV:-}" ]; then
        choose_docker
        ENV="$(environment_of_service || true)"
    fi
    ENV="${ENV:-${SITE_ENV:-prod}}"
    case "$ENV" in
        development) ENV=dev ;;
        production) ENV=prod ;;
        dev | test | staging | prod) ;;
        *) fail 2 "needs ENV to be one of dev, test, staging, prod, found «$ENV»." "make $(basename "$0" .sh) ENV=prod" ;;
    esac
    export ENV
}

note_environment() { # for the next command of a site, also after `cask down`
    local found
    found="$(environment_of_service || true)"
    ENV="${found:-$ENV}"
    [ ! -w "$SITE_CONF" ] || sed -i "s/^ENV=.*/ENV=$ENV/" "$SITE_CONF"
}

# The order of app/config/sources.py, for the few settings that compose needs: the real environment, env/local.env, env/<ENV>.env.
# The files hold plain KEY=value lines and nothing else (docs/decisions/0002-settings.md), so this reads them as Python does.
PLAIN_VALUE='[A-Za-z0-9_./:,@%+=-]*'
setting() { # setting NAME
    local value="${!1:-}" file
    for file in "$ENV_DIR/local.env" "$ENV_DIR/$ENV.env"; do
        [ -z "$value" ] || break
        # An editor on Windows ends lines with a carriage return too, and puts a mark before the first.
        if [ -r "$file" ]; then value="$(LC_ALL=C sed -nE "1s/^\xef\xbb\xbf//; s/\r\$//; s/^$1=($PLAIN_VALUE)\$/\1/p" "$file" | tail -n 1)"; fi
    done
    printf '%s' "$value"
}

# The grammar of app/config/sources.py: what Compose, Docker and Python would read differently is refused here already, as
# this shell would hand it on.
refuse_odd_lines() { # refuse_odd_lines [note_fault]
    local how="${1:-fail}" file odd cr=$'\r'
    for file in "$ENV_DIR/local.env" "$ENV_DIR/$ENV.env"; do
        [ -r "$file" ] || continue
        odd="$(LC_ALL=C sed "1s/^\xef\xbb\xbf//; s/$cr\$//" "$file" | tr '\0' "$cr" |
            LC_ALL=C grep -anvE "^([A-Z][A-Z0-9_]*=$PLAIN_VALUE|[ "$'\t'"]*(#[^$cr]*)?)\$" | head -n 1 || true)"
        [ -z "$odd" ] || "$how" 2 "$file:${odd%%:*} is not a plain line; expected NAME=value with letters, digits and ./:,@%+=_- only: no quotes, spaces, \`\$\`, \`export\` or comment after the value." "mend that line"
    done
}

load_settings() { # load_settings [note_fault] : exports what docker/compose.yaml reads; what is wrong there ends the command
    local name how="${1:-fail}"
    refuse_odd_lines "$how"
    for name in PORT HTTPS_PORT LISTEN_HOST SERVER_NAME TLS_CERTIFICATE TLS_KEY CONTAINER_MEMORY CONTAINER_CPUS; do
        case "${!name:-}" in *$'\r') "$how" 2 "needs $name to be one line of Unix, found «${!name%?}» and a carriage return: a shell read it from a file with the lines of Windows." "sed -i 's/\\r\$//' FILE, then read it again" ;; esac
        export "$name=$(setting "$name")"
    done
    # Compose reads relative paths from its own folder.
    ENV_DIR="$(realpath "$ENV_DIR")"
    SECRETS_DIR="$(realpath "$SECRETS_DIR")"
    export ENV_DIR SECRETS_DIR PROJECT CASK_IMAGE="$IMAGE"
}

all_settings() { awk '/^    [a-z0-9_]+: / {name = $1} / = setting\(/ {sub(/:$/, "", name); print name}' app/config/schema.py; }
secret_settings() { sed -En 's/^    ([a-z_]*): (SecretStr|SecretUrl|RedisUrl) = setting\(.*/\1/p' app/config/schema.py; }

# Settings given to this command, as in `make up WEB_THREADS=8`, reach the container too; compose.yaml knows only some.
# What shapes the container itself stays out of it: ports are mapped, paths are its own, secrets come as files (release.sh).
write_given_settings() { # writes $GIVEN, or removes it when nothing was given
    local field name value quote="'" rows="" secrets
    secrets=" $(secret_settings | tr '\n' ' ')"
    while read -r field; do
        name="${field^^}"
        case "$name" in
            ENV | PORT | HTTPS_PORT | LISTEN_HOST | TLS_* | CONTAINER_* | STATE_DIR | MODELS_DIR | ENGINE_SOCKET) continue ;;
        esac
        value="${!name:-}"
        if [ -z "$value" ] || [[ "$secrets" = *" $field "* ]]; then continue; fi
        case "$value" in *$'\n'*) fail 2 "needs $name on one line, found several." "make up ENV=$ENV" ;; esac
        value="${value//$quote/$quote$quote}"
        rows="$rows      $name: '${value//\$/\$\$}'"$'\n'
    done < <(all_settings)
    rm -f "$GIVEN"
    if [ -n "$rows" ]; then
        mkdir -p "${GIVEN%/*}"
        printf 'services:\n  cask:\n    environment:\n%s' "$rows" >"$GIVEN"
    fi
}

# `make up MONITORING=1` starts Prometheus and Grafana beside it; the next `make up` without it takes them away.
write_monitoring() { # writes $MONITORING_FILE and the targets of Prometheus, or removes it where none is asked for
    rm -f "$MONITORING_FILE"
    [ -n "$MONITORING" ] || return 0
    mkdir -p "build/monitoring/$PROJECT"
    printf '[{"targets": ["edge:%s"]}]\n' "${PORT:-8000}" >"build/monitoring/$PROJECT/cask.json"
    chmod a+rX build/monitoring "build/monitoring/$PROJECT" "build/monitoring/$PROJECT/cask.json"
    echo docker/monitoring/compose.yaml >"$MONITORING_FILE"
    if "$DOCKER" image inspect "$GRAFANA_IMAGE" >/dev/null 2>&1; then
        echo docker/monitoring/grafana.yaml >>"$MONITORING_FILE"
    fi
}

# What an earlier MONITORING=1 left: a network keeps its addresses from others, and Compose forgets what no file names.
forget_monitoring() { # forget_monitoring [volumes]
    for service in prometheus grafana; do
        "$DOCKER" ps -aq --filter "label=com.docker.compose.project=$PROJECT" \
            --filter "label=com.docker.compose.service=$service" | xargs -r "$DOCKER" rm --force >/dev/null
    done
    "$DOCKER" network disconnect --force "${PROJECT}_monitoring" "$EDGE" >/dev/null 2>&1 || true
    "$DOCKER" network rm "${PROJECT}_monitoring" >/dev/null 2>&1 || true
    if [ "${1:-}" = volumes ]; then
        for volume in prometheus grafana; do "$DOCKER" volume rm "${PROJECT}_$volume" >/dev/null 2>&1 || true; done
    fi
}

# `make up GPUS=all` (or a number of them) lets the container use GPUs; the next `make up` without it takes them away.
write_gpus() { # writes $GPU_FILE, or removes it where none is asked for
    rm -f "$GPU_FILE"
    [ -n "$GPUS" ] || return 0
    mkdir -p "${GPU_FILE%/*}"
    cat >"$GPU_FILE" <<YAML
services:
  cask:
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: $GPUS
              capabilities: [gpu, compute, utility]
YAML
}

# --- engine and compose -----------------------------------------------------------------------------------------------

# docker-compose 1 does not speak ssh, and each command of a client would be a connection of its own: one for all of them.
open_tunnel() { # DOCKER_HOST=ssh://user@host:port becomes a socket here, for as long as this process lives
    local address folder socket
    case "${DOCKER_HOST:-}" in ssh://*) ;; *) return 0 ;; esac
    address="${DOCKER_HOST#ssh://}"
    socket=/var/run/docker.sock
    if [[ "$address" = */?* ]]; then socket="/${address#*/}"; fi
    address="${address%%/*}"
    folder="$(mktemp -d "${TMPDIR:-/tmp}/cask-engine.XXXXXX")"
    # This pipe ends with this process, and with it the far end's cat and ssh. Ctrl-C is for this process alone.
    exec 7> >(
        trap '' HUP INT TERM
        ssh -o ExitOnForwardFailure=yes -L "$folder/socket:$socket" "ssh://$address" cat >/dev/null
        rm -rf "$folder"
    )
    while [ ! -S "$folder/socket" ]; do
        kill -0 $! 2>/dev/null || fail 2 "needs DOCKER_HOST to be a host that ssh reaches, found $DOCKER_HOST (above: what ssh says)." "ssh ${address%%:*}"
        sleep 0.1
    done
    address="${address#*@}"
    export ENGINE_HOST="${address%%:*}" DOCKER_HOST="unix://$folder/socket"
}

need_own_engine() { # need_own_engine COMMAND : for what mounts folders of this machine
    [ -z "$ENGINE_HOST" ] || fail 2 "make $1 needs to run on $ENGINE_HOST itself, as it reads and writes folders of that machine." \
        "ssh $ENGINE_HOST, and there: make $1"
}

choose_docker() { # sets DOCKER to a client that can build with BuildKit, where there is one
    local client version
    open_tunnel
    [ -z "${DOCKER:-}" ] || return 0
    DOCKER=""
    while read -r client; do
        version="$("$client" version --format '{{.Client.Version}}' 2>/dev/null || true)"
        # The line above prints the version even where the engine is away.
        [ -n "$version" ] || continue
        [ -n "$DOCKER" ] || DOCKER="$client"
        # Clients before 23 hold BuildKit themselves; later ones need the plug-in and fall back silently without it.
        if [ "${version%%.*}" -lt 23 ] || "$client" buildx version >/dev/null 2>&1; then
            DOCKER="$client"
            return 0
        fi
    done < <(type -aP docker)
}

has_buildkit() {
    local version
    version="$("$DOCKER" version --format '{{.Client.Version}}' 2>/dev/null || true)"
    [ "${version%%.*}" -lt 23 ] || "$DOCKER" buildx version >/dev/null 2>&1
}

need_buildkit() {
    has_buildkit || fail 2 "needs a client with BuildKit, found $DOCKER without it." \
        "apt-get install docker-buildx (or Debian 12's docker.io)"
}

need_base_image() {
    "$DOCKER" image inspect "$BASE_IMAGE" >/dev/null 2>&1 || "$DOCKER" pull -q "$BASE_IMAGE" >/dev/null 2>&1 ||
        fail 2 "needs the base image $BASE_IMAGE, found neither it nor a registry that has it." "make base-image"
}

need_engine() { # one line where there is none
    choose_docker
    [ -n "$DOCKER" ] || fail 2 "needs a container engine, found no docker." "make docker-engine"
    command -v "$DOCKER" >/dev/null || fail 2 "needs DOCKER to be a command, found none of the name «$DOCKER»." "leave DOCKER away, or install it"
    need_access
    "$DOCKER" info >/dev/null 2>&1 && return 0
    fail 2 "needs a running container engine, found none that answers." "make docker-engine"
}

# An engine that this user may not ask is not one that is away: nor is a service that it runs.
need_access() {
    local said
    if [ -z "$DOCKER" ] || said="$("$DOCKER" info 2>&1)"; then return 0; fi
    # Not by a pipe: with pipefail it would fail as docker does.
    if grep -qi 'permission denied' <<<"$said"; then
        fail 2 "needs access to Docker's socket, which «$(id -un)» may not open." \
            "sudo usermod -aG docker $(id -un), then log in again"
    fi
}

COMPOSE_COMMAND=()
choose_compose() { # sets COMPOSE_COMMAND: docker compose where the plug-in is there, docker-compose otherwise
    if [ ${#COMPOSE_COMMAND[@]} -gt 0 ]; then
        return 0
    elif "$DOCKER" compose version >/dev/null 2>&1; then
        COMPOSE_COMMAND=("$DOCKER" compose)
    elif [ "${DOCKER##*/}" != docker ]; then
        # docker-compose would ask Docker's engine, and not the one that was chosen.
        fail 2 "needs «$DOCKER compose» with DOCKER=$DOCKER, found that it does not work." "install it, or leave DOCKER away"
    elif command -v docker-compose >/dev/null; then
        COMPOSE_COMMAND=(docker-compose)
    else
        fail 2 "needs Compose, found neither «docker compose» nor docker-compose." "make docker-engine"
    fi
}

run_compose() {
    local session=()
    choose_compose
    # Compose 1 answers Ctrl-C in an `up` by stopping all containers of that service, also the one that serves.
    case " $* " in *" up "*) session=(setsid) ;; esac
    "${session[@]}" "${COMPOSE_COMMAND[@]}" "$@"
}

compose() { # by the files in docker/ and what was given
    local file files=(-f docker/compose.yaml)
    if [ "${HTTPS_PORT:-0}" != 0 ] && [ -n "${HTTPS_PORT:-}" ]; then files+=(-f docker/compose.tls.yaml); fi
    if [ -e "$GIVEN" ]; then files+=(-f "$GIVEN"); fi
    if [ -e "$GPU_FILE" ]; then files+=(-f "$GPU_FILE"); fi
    if [ -e "$MONITORING_FILE" ]; then
        while read -r file; do files+=(-f "$file"); done <"$MONITORING_FILE"
    fi
    run_compose -p "$PROJECT" "${files[@]}" "$@"
}

all_containers() { # the ids of the releases' containers, the newest first; those of `compose run` are none of them
    "$DOCKER" ps -aq --no-trunc \
        --filter "label=com.docker.compose.project=$PROJECT" \
        --filter label=com.docker.compose.service=cask \
        --filter label=com.docker.compose.oneoff=False
}

container() { # the id of the container that serves, running or stopped; nothing where there is none
    local found
    read_links
    found="$([ -z "$CURRENT" ] || container_of "$CURRENT")"
    if [ -n "$found" ]; then printf '%s' "$found"; else all_containers | head -n 1; fi
}

# Images of ours by revision: the newest three stay, those that a kept release of any project or a container needs, and all
# that people named otherwise.
prune_images() {
    local repository="${IMAGE%:*}" needed tag
    needed="$("$DOCKER" volume ls -q --filter label=cask.image | xargs -r "$DOCKER" volume inspect -f '{{index .Labels "cask.image"}}')"
    "$DOCKER" images --format '{{.Tag}}' "$repository" | grep -E '^([0-9a-f]{12}|unknown)(-changed)?(-[0-9a-f]{12})?$' |
        tail -n +4 | while read -r tag; do
        grep -qxF "$repository:$tag" <<<"$needed" || "$DOCKER" rmi "$repository:$tag" >/dev/null 2>&1 || true
    done || true
}

# A name that stays with this very image: its revision; with a part of its id where that revision has several.
revision_tag() { # revision_tag IMAGE : prints the name, and gives it to the image
    local id revision name
    read -r id revision < <("$DOCKER" image inspect -f '{{.Id}} {{index .Config.Labels "org.opencontainers.image.revision"}}' "$1")
    case "$revision" in '' | '<no value>' | *[!0-9a-z-]*) revision=unknown ;; esac
    name="${1%:*}:$revision"
    if [[ "$revision" = *-changed || "$revision" = unknown ]] ||
        [ "$("$DOCKER" image inspect -f '{{.Id}}' "$name" 2>/dev/null || echo "$id")" != "$id" ]; then
        id="${id#sha256:}"
        name="$name-${id:0:12}"
    fi
    "$DOCKER" tag "$1" "$name"
    printf '%s' "$name"
}

need_container() { # sets CONTAINER
    CONTAINER="$(container)"
    [ -n "$CONTAINER" ] || fail 1 "needs a container of the project «$PROJECT», found none." "make up ENV=$ENV"
}

# A command with the image, volumes and settings of $CONTAINER, which does not run; in one that serves nobody.
in_stopped_container() { # in_stopped_container PYTHON-ARGUMENT… : reads the input
    local memory
    memory="$("$DOCKER" inspect -f '{{.HostConfig.Memory}}' "$CONTAINER")"
    "$DOCKER" run --rm --interactive --network none --read-only --tmpfs /tmp --volumes-from "$CONTAINER" --memory "$memory" \
        --env-file <("$DOCKER" inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$CONTAINER" | grep .) \
        --entrypoint python "$("$DOCKER" inspect -f '{{.Image}}' "$CONTAINER")" "$@"
}

. "docker/steps/edge.sh"
