# An image out of Debian's packages, for machines that reach no image registry; sourced by base-image.sh, monitoring-image.sh.
# shellcheck shell=bash

SUITE="${SUITE:-bookworm}"
MIRROR="${MIRROR:-}"                        # default: Debian's own, with its security updates
FORCE="${FORCE:-}"                          # make it anew although it is there

# Ends the step where the image is there already. STEP is what makes it: make STEP.
debian_image() { # debian_image STEP IMAGE CHANGE WORDS [OPTION…] : CHANGE as `docker import` has it, OPTION as mmdebstrap
    local log began=$SECONDS step="$1" image="$2" change="$3" words="$4"
    need_engine
    if [ -z "$FORCE" ] && "$DOCKER" image inspect "$image" >/dev/null 2>&1; then
        say "${step%%-*}" "$image is there already (FORCE=1 makes it anew)"
        return 0
    fi
    may_be_root || fail 2 "needs the superuser to unpack Debian, found «$(id -un)»." "sudo make $step"

    # --- from here on, something changes ------------------------------------------------------------------------------

    if ! command -v mmdebstrap >/dev/null; then
        command -v apt-get >/dev/null || fail 2 "needs mmdebstrap, found neither it nor apt-get." "make this image on a Debian machine"
        say packages "mmdebstrap, debian-archive-keyring"
        as_root apt-get update -qq -o DPkg::Lock::Timeout=300
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            -o DPkg::Lock::Timeout=300 debian-archive-keyring mmdebstrap >/dev/null
    fi
    log="$(mktemp)"
    say "${step%%-*}" "$image: Debian $SUITE, $words"
    # What Debian's own slim images leave out too: documents, pages, translations. Licences stay.
    # shellcheck disable=SC2086 # no MIRROR, no argument
    as_root mmdebstrap \
        --variant=minbase \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        "${@:5}" "$SUITE" - $MIRROR 2>"$log" |
        "$DOCKER" import --change "$change" - "$image" >/dev/null ||
        { tail -n 10 "$log" | sed 's/^/    /' >&2
          rm -f "$log"
          fail 1 "needs Debian's packages from a mirror; mmdebstrap did not get them." "MIRROR=http://your-mirror/debian make $step"; }
    rm -f "$log"
    say made "$image, $("$DOCKER" image inspect -f '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}') in $((SECONDS - began)) s"
}
