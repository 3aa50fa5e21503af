#!/usr/bin/env bash
# What is wrong and what to do: `make doctor`. In the container where there is one, running or stopped; else here. Where the
# service is not installed, what the container will need is looked at without installing anything.
#
#   docker/steps/doctor.sh [OPTION…]
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

LEAST_MEGABYTES=6000                           # what an image and its successor take
FAILS=0

tell() { # tell VERDICT SUBJECT WORDS [NEXT]
    printf '  %-4s  %-15s  %s\n' "$1" "$2" "$3"
    if [ -n "${4:-}" ]; then printf '%25s→ %s\n' '' "$4"; fi
    if [ "$1" = fail ]; then FAILS=$((FAILS + 1)); fi
}

look_at_engine() {
    local free folder
    if [ -z "$DOCKER" ]; then
        tell fail Engine "no docker is installed" "make docker-engine"
    elif ! "$DOCKER" info >/dev/null 2>&1; then
        tell fail Engine "it does not answer, or «$(id -un)» may not ask it" "systemctl start docker, or: sudo usermod -aG docker $(id -un), then log in again"
    else
        tell ok Engine "$("$DOCKER" version --format '{{.Server.Version}}')"
        if "$DOCKER" image inspect "$IMAGE" >/dev/null 2>&1; then tell ok Image "$IMAGE"; else tell ok Image "none yet; make up builds it"; fi
        folder="$("$DOCKER" info --format '{{.DockerRootDir}}')"
        free="$(df -Pm "$folder" 2>/dev/null | awk 'NR == 2 {print $4}')"
        if [ "${free:-$LEAST_MEGABYTES}" -lt "$LEAST_MEGABYTES" ]; then
            tell warn Disk "$free MB free for $folder" "Make room: $LEAST_MEGABYTES MB are better (docker image prune removes images without a name)."
        else
            tell ok Disk "${free:-?} MB free for $folder"
        fi
    fi
}

look_at_files() {
    local field file found=""
    for file in "$ENV_DIR/$ENV.env" "$ENV_DIR/local.env"; do
        if [ ! -e "$file" ]; then
            [ "$file" = "$ENV_DIR/local.env" ] || tell fail Settings "$file is missing" "git checkout -- env"
        elif [ ! -r "$file" ]; then
            tell fail Settings "«$(id -un)» may not read $file" "sudo chmod o+r $file"
        elif wrong="$(tr -d '\r' <"$file" | sed '1s/^\xef\xbb\xbf//' | grep -nvE '^([A-Z][A-Z0-9_]*=[A-Za-z0-9_./:,@%+=-]*|[[:space:]]*(#.*)?)$' | head -n 1 | cut -d : -f 1)" && [ -n "$wrong" ]; then
            tell fail Settings "$file, line $wrong is no plain NAME=value" "Mend that line; make up says what it expects."
        else
            tell ok Settings "$file"
        fi
    done
    while read -r field; do
        file="$SECRETS_DIR/$field"
        [ -e "$file" ] || continue
        found="$found $field"
        if [ ! -r "$file" ]; then
            tell fail Secret "«$(id -un)», who starts the container, may not read $file" "sudo chown $(id -un) $file"
        elif [ ! -s "$file" ]; then
            tell fail Secret "$file is empty" "openssl rand -hex 32 >$file"
        elif [ "$(($(stat -c '0%a' "$file") & 7))" -ne 0 ]; then
            tell warn Secret "$file is open to every user of this machine" "chmod 600 $file (make up hands a copy to the container)"
        else
            tell ok Secret "$file"
        fi
    done < <(secret_settings)
    case "$ENV" in staging | prod)
        if [ -z "${SECRET_KEY:-}${SECRET_KEY_FILE:-}" ] && [[ "$found " != *" secret_key "* ]]; then
            tell fail Secret "SECRET_KEY is not set, which $ENV needs" "mkdir -p $SECRETS_DIR && (umask 077 && openssl rand -hex 32 >$SECRETS_DIR/secret_key)"
        fi
        ;;
    esac
}

look_at_port() {
    local port
    port="$(setting PORT)"
    if (exec 3<>"/dev/tcp/127.0.0.1/${port:-8000}") 2>/dev/null; then
        tell fail "Port ${port:-8000}" "another program listens there" "ss -ltnp 'sport = :${port:-8000}' tells which; or PORT="
    else
        tell ok "Port ${port:-8000}" free
    fi
}

choose_environment
choose_docker
if [ -n "$DOCKER" ] && CONTAINER="$(container 2>/dev/null)" && [ -n "$CONTAINER" ]; then
    if is_running "$CONTAINER"; then
        options=()
        if [ -t 1 ]; then options+=(--tty); fi
        exec "$DOCKER" exec "${options[@]}" "$CONTAINER" python -m app.cli doctor "$@"
    fi
    in_stopped_container -m app.cli doctor "$@"
    exit $?
fi
if [ -x .venv/bin/python ]; then exec .venv/bin/python -m app.cli doctor "$@"; fi
look_at_engine
look_at_files
look_at_port
printf '\n  No service is installed here and no container made; more is told once there is one: make up ENV=%s, or make serve\n' "$ENV"
[ "$FAILS" -eq 0 ]
