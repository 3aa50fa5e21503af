# What one `make up` starts, kept by the engine; sourced by up.sh, rollback.sh, down.sh after common.sh.
# shellcheck shell=bash
#
# A release is an image and copies of settings, secrets and certificates: the volumes <project>_settings-N and
# <project>_secrets-N. The first carries, as a label, the Compose file that starts it. So a restart gets what was
# checked, whatever became of the files since, and a way back needs nothing but the engine.

KEPT_RELEASES=3

# --- looking ----------------------------------------------------------------------------------------------------------

releases() { # the numbers of all that are kept, the newest first
    "$DOCKER" volume ls -q --filter "label=cask.project=$PROJECT" --filter label=cask.release |
        sed -n 's/^.*_settings-\([0-9][0-9]*\)$/\1/p' | sort -rn
}

has_release() { "$DOCKER" volume inspect "${PROJECT}_settings-$1" >/dev/null 2>&1; }

release_label() { # release_label NUMBER NAME
    "$DOCKER" volume inspect -f "{{index .Labels \"cask.$2\"}}" "${PROJECT}_settings-$1" 2>/dev/null || true
}

release_words() { # release_words NUMBER : for people
    printf 'release %s (%s, made %s)' "$1" "$(release_label "$1" image)" "$(release_label "$1" made)"
}

container_label() { # container_label ID NAME : empty where it has none
    "$DOCKER" inspect -f "{{index .Config.Labels \"cask.$2\"}}" "$1" 2>/dev/null | sed 's/^<no value>$//' || true
}

# --- making -----------------------------------------------------------------------------------------------------------

copy_secret() { # copy_secret FILE NAME
    # As bytes: a line of a shell variable would lose what no text has.
    cat -- "$1" >"$STAGE/secrets/$2" 2>/dev/null ||
        fail 2 "needs the file $1 for $2, which «$(id -un)» cannot read.$(still_serves)" "mend that file or its name, then: make up ENV=$ENV"
}

# In memory where that can be, for nobody else's eyes: what is hashed, checked and started is this one copy.
stage_release() { # sets STAGE
    local field name file folder=/dev/shm
    [ -w "$folder" ] || folder="${TMPDIR:-/tmp}"
    umask 077
    STAGE="$(mktemp -d "$folder/cask-release.XXXXXX")"
    trap 'rm -rf "$STAGE"' EXIT
    mkdir "$STAGE/settings" "$STAGE/secrets"
    cp -RL "$ENV_DIR/." "$STAGE/settings" 2>"$STAGE/refused" ||
        fail 2 "needs to read all of $ENV_DIR: $(head -n 1 "$STAGE/refused").$(still_serves)" "mend that file, then: make up ENV=$ENV"
    while read -r field; do
        name="${field^^}" file="${field^^}_FILE"
        if [ -n "${!name:-}" ]; then
            printf '%s' "${!name}" >"$STAGE/secrets/$field"
        elif [ -n "${!file:-}" ]; then
            copy_secret "${!file}" "$field"
        elif [ -e "$SECRETS_DIR/$field" ]; then
            copy_secret "$SECRETS_DIR/$field" "$field"
        fi
    done < <(secret_settings)
    if [ "${HTTPS_PORT:-0}" != 0 ]; then
        [ -n "$TLS_CERTIFICATE" ] && [ -n "$TLS_KEY" ] ||
            fail 2 "needs TLS_CERTIFICATE and TLS_KEY with HTTPS_PORT=$HTTPS_PORT, found one of them not set.$(still_serves)" "docs/container.md, TLS"
        copy_secret "$TLS_CERTIFICATE" tls_certificate
        copy_secret "$TLS_KEY" tls_key
    fi
    # Numbered once it is known whether it is new.
    RELEASE=RELEASENUMBER RELEASE_DIGEST=RELEASEDIGEST compose config >"$STAGE/compose.yaml" 2>"$STAGE/refused" ||
        fail 2 "needs Compose to read docker/compose*.yaml: $(grep -v '^$' "$STAGE/refused" | tail -n 1).$(still_serves)" "mend what it names, then: make up ENV=$ENV"
}

# Of the image, the Compose file, and the SHA-256 of each file; the random secret_key among them makes it tell nothing.
release_digest() {
    {
        "$DOCKER" image inspect -f '{{.Id}}' "$CASK_IMAGE"
        cat "$STAGE/compose.yaml"
        (cd "$STAGE" && find settings secrets -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
    } | sha256sum | cut -d ' ' -f 1
}

fill_volume() { # fill_volume NUMBER FOLDER MODE : for the container's user, who owns them
    tar --create --numeric-owner --owner=10001 --group=10001 --mode="$3" -C "$STAGE/$2" . |
        "$DOCKER" run --rm --interactive --network none --user 0:0 --volume "${PROJECT}_$2-$1:/into" --entrypoint tar \
            "$CASK_IMAGE" --extract --preserve-permissions --same-owner -C /into
}

make_release() { # make_release DIGEST : sets RELEASE
    local kind
    RELEASE=$(($(releases | head -n 1) + 1))
    sed -i "s/RELEASENUMBER/$RELEASE/g; s/RELEASEDIGEST/$1/g" "$STAGE/compose.yaml"
    for kind in secrets settings; do
        local labels=(--label "cask.project=$PROJECT" --label "cask.release=$RELEASE")
        if [ "$kind" = settings ]; then
            labels+=(--label "cask.image=$CASK_IMAGE" --label "cask.made=$(date +%Y-%m-%dT%H:%M:%S%z)"
                --label "cask.compose=$(base64 -w 0 "$STAGE/compose.yaml")")
        fi
        "$DOCKER" volume create "${labels[@]}" "${PROJECT}_$kind-$RELEASE" >/dev/null
    done
    { fill_volume "$RELEASE" settings 'a=rX' && fill_volume "$RELEASE" secrets 'u=rX,go='; } || {
        remove_release "$RELEASE"
        fail 1 "needs the engine to keep copies of settings and secrets; it did not (above).$(still_serves)" "make up ENV=$ENV"
    }
}

remove_release() { # remove_release NUMBER
    "$DOCKER" volume rm "${PROJECT}_settings-$1" "${PROJECT}_secrets-$1" >/dev/null 2>&1 || true
}

# The newest stay, and the one that serves; so do the images that they need.
prune_releases() { # prune_releases SERVING
    local number
    for number in $(releases | tail -n +$((KEPT_RELEASES + 1))); do
        [ "$number" = "$1" ] || remove_release "$number"
    done
    prune_images
}

# --- starting ---------------------------------------------------------------------------------------------------------

compose_release() { # compose_release NUMBER ARGUMENT… : by the file that it was made with
    local number="$1" file
    shift
    file="$(umask 077; mktemp "${TMPDIR:-/tmp}/cask-compose.XXXXXX.yaml")"
    release_label "$number" compose | base64 -d >"$file"
    local status=0
    run_compose -p "$PROJECT" -f "$file" "$@" || status=$?
    rm -f "$file"
    return "$status"
}

# As the start does it, as the same user, with the same mounts; the state is only looked at.
check_release() { # check_release NUMBER : prints the reason and returns 1 when it would not start
    local said
    said="$(compose_release "$1" run --rm --no-deps -T --entrypoint '' cask bash -c \
        '{ python -m app.state_files && CASK_ANNOUNCE=no STATE_DIR=/tmp/state bash apache/serve.sh --check; } 2>&1' \
        2>"$LOG" </dev/null)" && return 0
    said="$(printf '%s\n' "$said" | grep -v '^$' | { grep -v '^{' || true; } | sed 's/^FAIL: //' | head -n 1)"
    printf '%s' "${said:-$(grep -v '^$' "$LOG" | tail -n 1)}"
    return 1
}

first_exit_status() { # first_exit_status SINCE : by now the engine may be starting it again
    # Until the end of this second: the time is cut to seconds, and the container may have ended in this one.
    "$DOCKER" events --since "$1" --until "$(($(date +%s) + 1))" --filter "container=$CONTAINER" --filter event=die \
        --format '{{index .Actor.Attributes "exitCode"}}' | head -n 1
}

start_release() { # start_release NUMBER : sets CONTAINER; where it does not become ready, REASON, and returns 1
    local state restarts missing before began=$SECONDS said="" restarts_before=0 started_at
    before="$(container)"
    started_at="$(date +%s)"
    compose_release "$1" up -d --remove-orphans >"$LOG" 2>&1 </dev/null || {
        REASON="the engine did not start it: $(grep -iE 'error|cannot|in use' "$LOG" | grep -v 'Encountered errors' | tail -n 1 | cut -c 1-400)"
        return 1
    }
    need_container
    # A container that was there already may have been restarted in its life; only what happens now counts.
    if [ "$before" = "$CONTAINER" ]; then restarts_before="$("$DOCKER" inspect -f '{{.RestartCount}}' "$CONTAINER")"; fi
    while true; do
        read -r state restarts < <("$DOCKER" inspect -f '{{.State.Status}} {{.RestartCount}}' "$CONTAINER")
        if [ "$state" != running ] || [ "$restarts" -gt "$restarts_before" ]; then
            # Otherwise the engine would start it again and again.
            "$DOCKER" stop "$CONTAINER" >/dev/null 2>&1 || true
            REASON="it ended with status $(first_exit_status "$started_at")"
            return 1
        fi
        if missing="$("$DOCKER" exec "$CONTAINER" python -I docker/health.py 2>&1)"; then return 0; fi
        if [ $((SECONDS - began)) -ge "$WAIT_SECONDS" ]; then
            REASON="it is not ready after $WAIT_SECONDS s: $missing"
            return 1
        fi
        if [ "$missing" != "$said" ]; then
            said="$missing"
            say "$((SECONDS - began)) s" "${missing:-starting}"
        fi
        sleep 0.3
    done
}

# Takes what does not serve away and starts what served before. Always ends with status 1.
restore_release() { # restore_release FAILED BEFORE : BEFORE is empty where there was nothing
    local reason="$REASON" next="mend what it names, then: make up ENV=$ENV"
    if CONTAINER="$(container)" && [ -n "$CONTAINER" ]; then
        printf '\n' >&2
        # Started again and again, it says the same again and again.
        "$DOCKER" logs --tail 15 "$CONTAINER" 2>&1 | awk '!seen[$0]++ {print "    " $0}' >&2
        said="$("$DOCKER" logs --tail 15 "$CONTAINER" 2>&1 | grep -vE '^(\{|$)' | tail -n 1 | cut -c 1-300)" || true
        reason="$reason${said:+: $said}"
    fi
    if [ -z "$2" ]; then
        fail 1 "needs a ready container, found that $reason (above: the end of its log); nothing served before." \
            "$next (make logs shows all of it, make down clears it away)"
    fi
    say restore "$(release_words "$2")"
    all_containers | xargs -r "$DOCKER" rm --force >/dev/null
    # Short for the new one may be too short for what is known to work.
    [ "$WAIT_SECONDS" -ge 180 ] || WAIT_SECONDS=180
    if start_release "$2"; then
        [ "${0##*/}" != up.sh ] || remove_release "$1"
        fail 1 "release $1 does not serve, for $reason. $(release_words "$2") serves again." "$next"
    fi
    fail 1 "release $1 does not serve, for $reason. Nor does $(release_words "$2") any more, for $REASON." "make logs; $next"
}
