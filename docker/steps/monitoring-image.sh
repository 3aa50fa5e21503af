#!/usr/bin/env bash
# Make an image of Prometheus out of Debian's packages, for machines that reach no image registry.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

SUITE="${SUITE:-bookworm}"
MIRROR="${MIRROR:-}"                        # default: Debian's own, with its security updates
FORCE="${FORCE:-}"                          # make it anew although it is there

need_engine
if [ -z "$FORCE" ] && "$DOCKER" image inspect "$PROMETHEUS_IMAGE" >/dev/null 2>&1; then
    say prometheus "$PROMETHEUS_IMAGE is there already (FORCE=1 makes it anew)"
    exit 0
fi
may_be_root || fail 2 "needs the superuser to unpack Debian, found «$(id -un)»." "sudo make monitoring-image"
command -v mmdebstrap >/dev/null || fail 2 "needs mmdebstrap, found none." "apt-get install mmdebstrap"

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
began=$SECONDS
say prometheus "$PROMETHEUS_IMAGE: Debian $SUITE with its package prometheus"
# The folder belongs to the user of compose.yaml; a volume takes that over.
# shellcheck disable=SC2086 # no MIRROR, no argument
as_root mmdebstrap \
    --variant=minbase \
    --include=prometheus,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='mkdir "$1/prometheus" && chown 65534:65534 "$1/prometheus"' \
    "$SUITE" - $MIRROR 2>"$log" |
    "$DOCKER" import --change 'ENTRYPOINT ["prometheus"]' - "$PROMETHEUS_IMAGE" >/dev/null ||
    { tail -n 10 "$log" | sed 's/^/    /' >&2
      fail 1 "needs Debian's packages from a mirror; mmdebstrap did not get them." "MIRROR=http://your-mirror/debian make monitoring-image"; }
say made "$PROMETHEUS_IMAGE, $("$DOCKER" image inspect -f '{{.Size}}' "$PROMETHEUS_IMAGE" | awk '{printf "%.0f MB", $1 / 1e6}') in $((SECONDS - began)) s"
