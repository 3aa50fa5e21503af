# The edge: what owns the published ports and hands requests to the release that serves (docs/decisions/0069-edge.md).
# Sourced by common.sh.
# shellcheck shell=bash
#
# The volume <project>_edge is its folder. Links in it name releases as <number>/<address>:<port>: `current` serves,
# `previous` stands by, `trying` is being started (docker/stand-by.sh reads them too). `conf` is what Apache reads,
# `certificate` holds certificate and key, `history` has a line for each action.

BACK="${PROJECT}_back"                      # the network of edge and releases; each has an address of its own there
EDGE="$PROJECT-edge"                        # the container
EDGE_FOLDER="${PROJECT}_edge"               # the volume
EDGE_MEMORY="${EDGE_MEMORY:-512m}"          # with what arrives; 20 MB when nobody calls
CURRENT="" PREVIOUS="" TRYING=""            # numbers of releases; see read_links
PLACED=""                                   # for the history: that the certificate was replaced

# --- looking ----------------------------------------------------------------------------------------------------------

read_links() { # sets CURRENT, PREVIOUS and TRYING; empty where the folder names none, or there is no edge
    local id links=""
    for id in "$EDGE" $(all_containers); do
        # Also of a container that does not run.
        links="$("$DOCKER" cp "$id:/edge" - 2>/dev/null | tar -tv 2>/dev/null || true)"
        [ -z "$links" ] || break
    done
    CURRENT="$(sed -n 's|.* edge/current -> \([0-9][0-9]*\)/.*|\1|p' <<<"$links")"
    PREVIOUS="$(sed -n 's|.* edge/previous -> \([0-9][0-9]*\)/.*|\1|p' <<<"$links")"
    TRYING="$(sed -n 's|.* edge/trying -> \([0-9][0-9]*\)/.*|\1|p' <<<"$links")"
}

has_edge_folder() { "$DOCKER" inspect -f '{{range .Mounts}}{{println .Destination}}{{end}}' "$1" 2>/dev/null | grep -qx /edge; }

container_of() { # container_of NUMBER : the id of a release's container; nothing where there is none
    "$DOCKER" ps -aq --no-trunc --filter "label=com.docker.compose.project=$PROJECT" \
        --filter label=com.docker.compose.oneoff=False --filter "label=cask.release=$1" | head -n 1
}

is_running() { [ -n "$1" ] && [ "$("$DOCKER" inspect -f '{{.State.Running}}' "$1" 2>/dev/null)" = true ]; }

ranges() { # ranges NETWORK : each on a line, such as 172.18.0.0/16; nothing where there is no such network
    "$DOCKER" network inspect -f '{{range .IPAM.Config}}{{println .Subnet}}{{end}}' "$1" 2>/dev/null | grep . || true
}

back_range() { ranges "$BACK" | grep -m 1 -v :; } # an engine may give its networks one of IPv6 too

nth_address() { # nth_address RANGE N : the address N places after its first
    local first="${1%/*}"
    printf '%s.%s' "${first%.*}" $((${first##*.} + $2))
}

own_addresses() { # own_addresses RANGE : how many at its beginning are the edge's and the releases'; others get later ones
    local bits="${1#*/}"
    if [ "$bits" -le 24 ]; then echo 128; else echo $((1 << (31 - bits))); fi
}

host_address() { nth_address "$(back_range)" 1; }
edge_address() { nth_address "$(back_range)" 2; }
release_address() { # release_address NUMBER
    local range own
    range="$(back_range)"
    own="$(own_addresses "$range")"
    if [ "$own" -eq 128 ]; then nth_address "$range" $((16 + $1 % 100)); else nth_address "$range" $((3 + $1 % (own - 3))); fi
}

# --- making -----------------------------------------------------------------------------------------------------------

# The engine takes addresses of ours only in a network whose range was given. Which is free, it says by making one without.
make_network() {
    local range own bits said=""
    "$DOCKER" network inspect "$BACK" >/dev/null 2>&1 && return 0
    # Somebody else may be given the range between two of these commands.
    for _ in 1 2 3 4 5; do
        said="$("$DOCKER" network create "$BACK" 2>&1)" || break
        range="$(back_range || true)"
        "$DOCKER" network rm "$BACK" >/dev/null
        bits="${range#*/}"
        if [ "${bits:-32}" -gt 26 ]; then
            said="the next one is ${range:-without addresses of IPv4}"
            break
        fi
        own="$(own_addresses "$range")"
        [ "$bits" -ge 24 ] || bits=24
        said="$("$DOCKER" network create --subnet "$range" --gateway "$(nth_address "$range" 1)" \
            --ip-range "$(nth_address "$range" "$own")/$((bits + 1))" "$BACK" 2>&1)" && return 0
    done
    fail 2 "needs a network of its own, with 64 addresses or more, found none: $(tail -n 1 <<<"$said").$(still_serves)" \
        "docker network prune, or larger default-address-pools in /etc/docker/daemon.json"
}

monitoring_ranges() { ranges "${PROJECT}_monitoring" | paste -s -d , -; }
is_our_monitoring_network() { # and not one that Compose made, as it did for releases of an earlier Cask
    [ "$("$DOCKER" network inspect -f '{{index .Labels "cask.project"}}' "${PROJECT}_monitoring" 2>/dev/null)" = "$PROJECT" ]
}

# The network of `make up MONITORING=1`: the one that is there; anew where other ranges are asked for. Sets REASON and returns
# 1 where the engine makes none.
make_monitoring_network() { # make_monitoring_network [RANGE,RANGE…] : by default, what the engine has free
    local name="${PROJECT}_monitoring" range options=(--label "cask.project=$PROJECT")
    for range in ${1//,/ }; do
        options+=(--subnet "$range")
        case "$range" in *:*) options+=(--ipv6) ;; esac
    done
    if "$DOCKER" network inspect "$name" >/dev/null 2>&1; then
        if [ -z "$1" ] || [ "$1" = "$(monitoring_ranges)" ]; then return 0; fi
        # What is there serves on where they are not to be had.
        REASON="$("$DOCKER" network create "${options[@]}" "$name-trial" 2>&1)" || return 1
        "$DOCKER" network rm "$name-trial" >/dev/null
        forget_monitoring
    fi
    REASON="$("$DOCKER" network create "${options[@]}" "$name" 2>&1)" || return 1
}

make_edge_folder() {
    "$DOCKER" volume inspect "$EDGE_FOLDER" >/dev/null 2>&1 && return 0
    "$DOCKER" volume create --label "cask.project=$PROJECT" "$EDGE_FOLDER" >/dev/null
    "$DOCKER" run --rm --network none --user 0:0 --volume "$EDGE_FOLDER:/edge" --entrypoint sh "$CASK_IMAGE" \
        -c 'chown 10001:10001 /edge && chmod 0750 /edge'
}

# A shell's words in the edge's folder, as its owner: in CONTAINER where that runs, else in one for the purpose.
in_edge_folder() { # in_edge_folder WORDS [ARGUMENT…]
    local words="cd /edge && $1"
    shift
    if is_running "${CONTAINER:-}" && has_edge_folder "$CONTAINER"; then
        "$DOCKER" exec --interactive "$CONTAINER" sh -c "$words" sh "$@"
    else
        "$DOCKER" run --rm --interactive --network none --user 10001:10001 --volume "$EDGE_FOLDER:/edge" --entrypoint sh \
            "$CASK_IMAGE" -c "$words" sh "$@"
    fi
}

# Each by a rename, so that a reader finds the old or the new one, whole; on disk when this returns.
point() { # point LINK NUMBER [LINK NUMBER…] : in this order; no number takes the link away
    local number pairs=()
    while [ $# -gt 0 ]; do
        number="$2"
        pairs+=("$1" "${number:+$number/$(release_address "$number"):$(release_label "$number" port)}")
        shift 2
    done
    # shellcheck disable=SC2016 # that shell expands it
    in_edge_folder 'while [ $# -gt 0 ]; do
        if [ -n "$2" ]; then ln -sfn "$2" ".$1" && mv -T ".$1" "$1" || exit 1; else rm -f "$1"; fi; shift 2; done
        sync .' "${pairs[@]}"
}

# One line for each action, whoever did it and however it ended.
record() { # record ACTION NUMBER RESULT
    local image
    "$DOCKER" volume inspect "$EDGE_FOLDER" >/dev/null 2>&1 || return 0
    is_running "${CONTAINER:-}" || "$DOCKER" image inspect "$CASK_IMAGE" >/dev/null 2>&1 || return 0
    image="$([ -z "$2" ] || release_label "$2" image)"
    # shellcheck disable=SC2016
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%FT%TZ)" "$1" "${2:--}" "${image:--}" \
        "${SUDO_USER:-$(id -un)}@$(hostname)" "$(tr '\n\t' '  ' <<<"$3" | cut -c 1-300)" |
        in_edge_folder '{ tail -n 199 history 2>/dev/null; cat; } >.history && mv .history history' >/dev/null 2>&1 || true
}

# What the files say and what runs, compared without a word of a secret leaving this process: names of what differs.
differing_files() { # differing_files CONTAINER
    local field file files
    files="$({
        (cd "$ENV_DIR" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum | sed 's|  \./|  env/|')
        while read -r field; do
            file="$SECRETS_DIR/$field"
            if [ -r "$file" ]; then printf '%s  secrets/%s\n' "$(sha256sum <"$file" | cut -d ' ' -f 1)" "$field"; fi
        done < <(secret_settings)
    } | sort)"
    "$DOCKER" exec "$1" sh -c 'cd /app/env && find . -type f -exec sha256sum {} + | sed "s|  \./|  env/|"
        cd /run/secrets && for each in *; do sha256sum "$each" | sed "s|  |  secrets/|"; done' | sort |
        { diff - <(printf '%s\n' "$files") || true; } | sed -n 's/^[<>] [0-9a-f]*  //p' | sort -u | paste -sd ' '
}

# --- certificate and configuration ------------------------------------------------------------------------------------

# Not of a release: going back to an earlier one must not bring an expired certificate back.
place_certificate() { # the pair in STAGE serves from the next handshake on
    local name said
    [ -e "$STAGE/pair" ] || return 0
    name="pair-$(sha256sum <"$STAGE/pair" | cut -c 1-16).pem"
    # shellcheck disable=SC2016
    [ "$(in_edge_folder 'readlink certificate' 2>/dev/null)" != "/edge/$name" ] || return 0
    # shellcheck disable=SC2016
    in_edge_folder 'umask 077 && cat >".$1" && mv ".$1" "$1"' "$name" <"$STAGE/pair"
    said="$("$DOCKER" run --rm --network none --volume "$EDGE_FOLDER:/edge:ro" --entrypoint python "$CASK_IMAGE" -c \
        'import pathlib, sys; from app.host import certificates; p = pathlib.Path(sys.argv[1]); print(certificates.pair_fault(p, p) or "")' \
        "/edge/$name" 2>&1)" || said="the certificate cannot be read: $(tail -n 1 <<<"$said")"
    if [ -n "$said" ]; then
        in_edge_folder 'rm -f "$1"' "$name"
        said="${said//\/edge\/$name/$TLS_KEY}"
        fail 2 "$said.$(still_serves)" "mend TLS_CERTIFICATE and TLS_KEY, then: make up ENV=$ENV"
    fi
    # shellcheck disable=SC2016
    in_edge_folder 'ln -sfn "/edge/$1" .certificate && mv -T .certificate certificate
        for each in pair-*.pem; do [ "$each" = "$1" ] || rm -f "$each"; done' "$name"
    PLACED=", with a new certificate"
    say certificate "serves from the next handshake on"
}

# What a release has rendered while it was checked; its folder goes with it. Says `new` where the bytes are others.
use_configuration() { # use_configuration NUMBER
    # shellcheck disable=SC2016
    in_edge_folder 'cmp -s "conf-$1/digest" conf/digest || echo new; ln -sfn "conf-$1" .conf && mv -T .conf conf' "$1"
}

# --- the container ----------------------------------------------------------------------------------------------------

create_edge() { # create_edge NAME KEY HOST PORT HTTPS_PORT
    local host="$3" publish=()
    case "$host" in *:*[!]]) host="[$host]" ;; esac
    publish+=(--publish "$host:$4:$4")
    if [ "$5" != 0 ]; then publish+=(--publish "$host:$5:$5"); fi
    "$DOCKER" create --name "$1" --hostname edge \
        --label "cask.project=$PROJECT" --label cask.role=edge --label "cask.edge=$2" \
        --network "$BACK" --ip "$(edge_address)" "${publish[@]}" \
        --volume "$EDGE_FOLDER:/edge:ro" \
        --user 10001:10001 --read-only --tmpfs /tmp:size=64m,mode=1777,noexec,nosuid,nodev \
        --cap-drop ALL --security-opt no-new-privileges:true --memory "$EDGE_MEMORY" --pids-limit 4096 \
        --restart always --stop-signal SIGWINCH --stop-timeout 60 \
        --health-cmd "bash -c 'exec 3<>/dev/tcp/127.0.0.1/$4'" --health-interval 15s \
        --log-driver json-file --log-opt max-size=20m --log-opt max-file=5 \
        --entrypoint bash "$CASK_IMAGE" apache/edge.sh /edge/conf >/dev/null
}

# As the release wants it: ports, addresses, Apache. Sets REASON and returns 1 where the engine does not start it; then the
# one before is there again.
need_edge() { # need_edge NUMBER
    local key changed
    changed="$(use_configuration "$1")"
    key="$(release_label "$1" publish) $(release_label "$1" edge) $EDGE_MEMORY"
    if [ "$("$DOCKER" inspect -f '{{index .Config.Labels "cask.edge"}}' "$EDGE" 2>/dev/null)" != "$key" ]; then
        replace_edge "$key" "$1" || return 1
    elif ! is_running "$EDGE"; then
        "$DOCKER" start "$EDGE" >/dev/null 2>"$LOG" || { refused_by_engine; return 1; }
    elif [ -n "$changed" ]; then
        # Apache's own restart: it keeps the ports, and who is being answered.
        "$DOCKER" kill --signal USR1 "$EDGE" >/dev/null
        # That of an earlier Cask would stay away after a reboot: for the engine, a signal is a stop by hand.
        "$DOCKER" update --restart always "$EDGE" >/dev/null
        say edge "takes its new settings"
    fi
    join_monitoring
}

replace_edge() { # replace_edge KEY NUMBER
    local old="" publish
    read -ra publish <<<"$(release_label "$2" publish)"
    if "$DOCKER" inspect "$EDGE" >/dev/null 2>&1; then
        old="$EDGE-before"
        say edge "is replaced, as its ports or its Apache change: callers are refused for a second or two"
        "$DOCKER" rm --force --volumes "$old" >/dev/null 2>&1 || true
        "$DOCKER" rename "$EDGE" "$old"
        "$DOCKER" stop -t 5 "$old" >/dev/null
    fi
    if create_edge "$EDGE" "$1" "${publish[@]}" 2>"$LOG" && "$DOCKER" start "$EDGE" >/dev/null 2>"$LOG"; then
        [ -z "$old" ] || "$DOCKER" rm --volumes "$old" >/dev/null
        return 0
    fi
    refused_by_engine
    "$DOCKER" rm --force --volumes "$EDGE" >/dev/null 2>&1 || true
    if [ -n "$old" ]; then
        # What it read before; that of the failed release goes away.
        [ -z "$CURRENT" ] || use_configuration "$CURRENT" >/dev/null
        "$DOCKER" rename "$old" "$EDGE"
        "$DOCKER" start "$EDGE" >/dev/null
    fi
    return 1
}

join_monitoring() { # Prometheus asks the edge, so that it sees whichever release serves
    "$DOCKER" network inspect "${PROJECT}_monitoring" >/dev/null 2>&1 || return 0
    "$DOCKER" network connect --alias edge "${PROJECT}_monitoring" "$EDGE" >/dev/null 2>&1 || true
}
