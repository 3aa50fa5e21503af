# What one `make up` starts, kept by the engine; sourced by up.sh, rollback.sh, down.sh after common.sh. changeover.sh starts it.
# shellcheck shell=bash
#
# A release is an image and copies of settings and secrets: the volumes <project>_settings-N and
# <project>_secrets-N. <project>_run-N holds the sockets of its container alone. The first carries, as a label, the Compose file that starts it. So a restart gets what was
# checked, whatever became of the files since, and a way back needs nothing but the engine.

KEPT_RELEASES=3
UNSERVED=""                                 # the release that was made just now and has not served yet

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
stage_release() { # sets STAGE, which leave takes away (changeover.sh)
    local field name file folder=/dev/shm
    [ -w "$folder" ] || folder="${TMPDIR:-/tmp}"
    umask 077
    # Of a command that was killed; this one has the turn.
    rm -rf "$folder/cask-release.$PROJECT".?????? 2>/dev/null || true
    STAGE="$(mktemp -d "$folder/cask-release.$PROJECT.XXXXXX")"
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
        # Of no release: the newest pair serves, whichever release does (edge.sh).
        { cat -- "$TLS_CERTIFICATE" && echo && cat -- "$TLS_KEY"; } >"$STAGE/pair" 2>/dev/null ||
            fail 2 "needs TLS_CERTIFICATE and TLS_KEY, found $TLS_CERTIFICATE or $TLS_KEY, which «$(id -un)» cannot read.$(still_serves)" \
                "mend that file or its name, then: make up ENV=$ENV"
    fi
    # Numbered once it is known whether it is new.
    RELEASE=RELEASENUMBER RELEASE_DIGEST=RELEASEDIGEST HOST_ADDRESS=HOSTADDRESS EDGE_ADDRESS=EDGEADDRESS \
        RELEASE_ADDRESS=RELEASEADDRESS compose config >"$STAGE/compose.yaml" 2>"$STAGE/refused" ||
        fail 2 "needs Compose to read docker/compose*.yaml: $(grep -v '^$' "$STAGE/refused" | tail -n 1).$(still_serves)" "mend what it names, then: make up ENV=$ENV"
}

# Of the image, the Compose file, and the SHA-256 of each file; the random secret_key among them makes it tell nothing.
release_digest() {
    {
        "$DOCKER" image inspect -f '{{.Id}}' "$CASK_IMAGE"
        echo "$LISTEN_HOST ${PORT:-8000} ${HTTPS_PORT:-0}"
        cat "$STAGE/compose.yaml"
        (cd "$STAGE" && find settings secrets -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
    } | sha256sum | cut -d ' ' -f 1
}

# On disk when it returns: a power cut must not leave a release that serves and has empty files. Not by `sync -f`, which
# makes others wait whose files it writes too.
fill_volume() { # fill_volume NUMBER FOLDER MODE : for the container's user, who owns them
    tar --create --numeric-owner --owner=10001 --group=10001 --mode="$3" -C "$STAGE/$2" . |
        "$DOCKER" run --rm --interactive --network none --user 0:0 --volume "${PROJECT}_$2-$1:/into" --entrypoint sh \
            "$CASK_IMAGE" -c 'tar --extract --preserve-permissions --same-owner -C /into && find /into -exec sync {} +'
}

# Of what the edge is made of in the image: while that stays, it needs no other image.
edge_image() {
    "$DOCKER" run --rm --network none --entrypoint sh "$CASK_IMAGE" -c '{ cat apache/modules/*.c apache/edge.sh
        dpkg-query -W apache2-bin libapr1 libaprutil1 libssl3 libnghttp2-14 libpcre2-8-0 zlib1g libc6 2>/dev/null
        } | sha256sum | cut -c 1-16'
}

make_release() { # make_release DIGEST : sets RELEASE
    local kind EDGE_IMAGE
    EDGE_IMAGE="$(edge_image)"
    RELEASE=$(($(releases | head -n 1) + 1))
    UNSERVED="$RELEASE"
    sed -i "s/RELEASENUMBER/$RELEASE/g; s/RELEASEDIGEST/$1/g" "$STAGE/compose.yaml"
    for kind in run secrets settings; do
        local labels=(--label "cask.project=$PROJECT" --label "cask.release=$RELEASE")
        if [ "$kind" = settings ]; then
            labels+=(--label "cask.publish=$LISTEN_HOST ${PORT:-8000} ${HTTPS_PORT:-0}" --label "cask.port=${PORT:-8000}"
                --label "cask.edge=$EDGE_IMAGE" --label "cask.image=$CASK_IMAGE" --label "cask.made=$(date +%Y-%m-%dT%H:%M:%S%z)"
                --label "cask.compose=$(base64 -w 0 "$STAGE/compose.yaml")")
        fi
        "$DOCKER" volume create "${labels[@]}" "${PROJECT}_$kind-$RELEASE" >/dev/null
    done
    { fill_volume "$RELEASE" settings 'a=rX' && fill_volume "$RELEASE" secrets 'u=rX,go='; } ||
        fail 1 "needs the engine to keep copies of settings and secrets; it did not (above).$(still_serves)" "make up ENV=$ENV"
}

remove_release() { # remove_release NUMBER
    local kind
    for kind in settings secrets run; do "$DOCKER" volume rm "${PROJECT}_$kind-$1" >/dev/null 2>&1 || true; done
    # shellcheck disable=SC2016
    if "$DOCKER" volume inspect "$EDGE_FOLDER" >/dev/null 2>&1; then
        in_edge_folder '[ "$(readlink conf)" = "conf-$1" ] || rm -rf "conf-$1" "tries-$1"' "$1" >/dev/null 2>&1 || true
    fi
}

# One that never served is nothing to go back to.
forget_unserved() {
    [ -z "$UNSERVED" ] || remove_release "$UNSERVED"
    UNSERVED=""
}

# The newest stay, the one that serves and the one that stands by; so do the images that they need.
prune_releases() {
    local number
    read_links
    for number in $(releases | tail -n +$((KEPT_RELEASES + 1))); do
        [ "$number" = "$CURRENT" ] || [ "$number" = "$PREVIOUS" ] || remove_release "$number"
    done
    prune_images
}
