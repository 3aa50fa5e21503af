#!/usr/bin/env bash
# Make the base image out of Debian's packages, for machines that reach no image registry.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

SUITE="${SUITE:-bookworm}"
MIRROR="${MIRROR:-}"                        # default: Debian's own, with its security updates
FORCE="${FORCE:-}"                          # make it anew although it is there

need_engine
if [ -z "$FORCE" ] && "$DOCKER" image inspect "$BASE_IMAGE" >/dev/null 2>&1; then
    say base "$BASE_IMAGE is there already (FORCE=1 makes it anew)"
    echo "Next: make up ENV=prod"
    exit 0
fi
may_be_root || fail 2 "needs the superuser to unpack Debian, found «$(id -un)»." "sudo make base-image"

# --- from here on, something changes ----------------------------------------------------------------------------------

if ! command -v mmdebstrap >/dev/null; then
    command -v apt-get >/dev/null || fail 2 "needs mmdebstrap, found neither it nor apt-get." "make this image on a Debian machine"
    say packages "mmdebstrap, debian-archive-keyring"
    as_root apt-get update -qq -o DPkg::Lock::Timeout=300
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 debian-archive-keyring mmdebstrap >/dev/null
fi

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
began=$SECONDS
say base "$BASE_IMAGE: Debian $SUITE, essential packages"
# What Debian's own slim images leave out too: documents, pages, translations. Licences stay.
# shellcheck disable=SC2086 # no MIRROR, no argument
as_root mmdebstrap \
    --variant=minbase \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    "$SUITE" - $MIRROR 2>"$log" |
    "$DOCKER" import --change 'CMD ["bash"]' - "$BASE_IMAGE" >/dev/null ||
    { tail -n 10 "$log" | sed 's/^/    /' >&2
      fail 1 "needs Debian's packages from a mirror; mmdebstrap did not get them." "MIRROR=http://your-mirror/debian make base-image"; }

say made "$BASE_IMAGE, $("$DOCKER" image inspect -f '{{.Size}}' "$BASE_IMAGE" | awk '{printf "%.0f MB", $1 / 1e6}') in $((SECONDS - began)) s"
echo "Next: make up ENV=prod"
