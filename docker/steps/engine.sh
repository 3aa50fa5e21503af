#!/usr/bin/env bash
# Install Docker's engine and Compose from the distribution's packages, start the engine, wait until it answers.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

RUN_DIR="${RUN_DIR:-/var/run/cask-docker}"  # where there is no systemd: the engine's pid file and log
WAIT_SECONDS="${WAIT_SECONDS:-60}"

PACKAGES=(
    apparmor       # where the kernel has it, the engine loads a profile for containers
    docker-compose # starts the container as docker/compose.yaml says
    docker.io      # the engine, and a client that has BuildKit
    iptables       # the engine's networks
    openssh-client # signs bundles, and knows whose signature it is
    zstd           # packs and unpacks images in bundles
)

answers() { choose_docker && [ -n "$DOCKER" ] && "$DOCKER" info >/dev/null 2>&1; }

missing_packages() {
    local name
    for name in "${PACKAGES[@]}"; do
        # A docker of another origin (docker-ce) is as good, and conflicts with the package.
        case "$name" in
            apparmor) if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ]; then continue; fi ;;
            docker.io) if command -v dockerd >/dev/null; then continue; fi ;;
            docker-compose)
                if command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1; then continue; fi ;;
        esac
        # shellcheck disable=SC2016 # the format is dpkg-query's
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s ' "$name"
    done
}

# --- preflight: touches nothing ---------------------------------------------------------------------------------------

missing="$(missing_packages)"
missing="${missing% }"
if [ -z "$missing" ] && answers; then
    say engine "answers already: $("$DOCKER" version --format '{{.Server.Version}}')"
    echo "Next: make up ENV=prod"
    exit 0
fi
if [ -n "$missing" ] && ! command -v apt-get >/dev/null; then
    fail 2 "needs $missing, and found no apt-get to install it with." "install Docker Engine >= 20.10 with Compose yourself."
fi
may_be_root || fail 2 "needs the superuser to install «$missing» and start the engine, found «$(id -un)»." \
    "sudo make docker-engine"

# --- from here on, something changes ----------------------------------------------------------------------------------

if [ -n "$missing" ]; then
    say packages "$missing"
    as_root apt-get update -qq -o DPkg::Lock::Timeout=300
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 $missing >/dev/null
fi

# Newer distributions pack the client and BuildKit's plug-in apart; Debian 12's docker.io has both.
choose_docker
for name in docker-cli docker-buildx; do
    if { [ "$name" = docker-cli ] && [ -z "$DOCKER" ]; } || { [ "$name" = docker-buildx ] && [ -n "$DOCKER" ] && ! has_buildkit; }; then
        if apt-cache show "$name" >/dev/null 2>&1; then
            say packages "$name"
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                -o DPkg::Lock::Timeout=300 "$name" >/dev/null
            DOCKER=""
            choose_docker
        fi
    fi
done

wait_for_engine() { # wait_for_engine [PID] : until it answers, ends, or the time is over
    local began
    began="$(steady_seconds)"
    until answers; do
        if [ -n "${1:-}" ] && ! as_root kill -0 "$1" 2>/dev/null; then return 1; fi
        if [ $(($(steady_seconds) - began)) -ge "$WAIT_SECONDS" ]; then return 1; fi
        sleep 0.5
    done
}

# An engine that was killed leaves its number behind, and perhaps its containerd. The new one would wait for that one, or
# take another process of the same number for it.
clear_leftovers() {
    local file pid
    for file in "$RUN_DIR/dockerd.pid" /var/run/docker/containerd/containerd.pid; do
        pid="$(as_root cat "$file" 2>/dev/null || true)"
        if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = containerd ]; then
            as_root kill "$pid" || true
            for _ in $(seq 50); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
        fi
        as_root rm -f "$file"
    done
}

start_by_hand() { # start_by_hand OPTION… : dockerd in a session of its own, so that it outlives this shell
    as_root mkdir -p "$RUN_DIR"
    clear_leftovers
    # shellcheck disable=SC2016 # that shell expands it
    as_root sh -c 'exec setsid dockerd --pidfile "$0/dockerd.pid" "$@" >>"$0/dockerd.log" 2>&1 </dev/null &' "$RUN_DIR" "$@"
    # dockerd writes the file itself, early; without it, it did not come that far.
    local began
    began="$(steady_seconds)"
    until as_root test -s "$RUN_DIR/dockerd.pid" || [ $(($(steady_seconds) - began)) -ge 10 ]; do sleep 0.2; done
    wait_for_engine "$(as_root cat "$RUN_DIR/dockerd.pid" 2>/dev/null || echo 0)"
}

if ! answers; then
    if [ -d /run/systemd/system ]; then
        say start "systemd: docker.service"
        as_root systemctl enable --now docker >/dev/null 2>&1 ||
            fail 1 "needs docker.service to start; it did not." "systemctl status docker; journalctl -u docker -n 50"
        wait_for_engine || fail 1 "needs an engine that answers within $WAIT_SECONDS s, found none." "journalctl -u docker -n 50"
    else
        say start "dockerd, by hand (log: $RUN_DIR/dockerd.log)"
        # The first storage driver that works: overlay2 where the file system bears it, else plain copies.
        start_by_hand ||
            { say start "again, with the storage driver vfs" && start_by_hand --storage-driver vfs; } ||
            { as_root tail -n 10 "$RUN_DIR/dockerd.log" | sed 's/^/    /' >&2
              fail 1 "needs an engine that answers within $WAIT_SECONDS s, found none." "read $RUN_DIR/dockerd.log"; }
    fi
fi

choose_docker
say engine "$("$DOCKER" version --format '{{.Server.Version}}'), storage $("$DOCKER" info --format '{{.Driver}}')"
has_buildkit || say note "$DOCKER has no BuildKit: install docker-buildx, or Debian 12's docker.io"
echo "Next: make base-image (where no registry can be reached), then make up ENV=prod"
