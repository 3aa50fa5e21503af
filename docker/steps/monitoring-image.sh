#!/usr/bin/env bash
# Make an image of Prometheus out of Debian's packages, for machines that reach no image registry.
# shellcheck source-path=SCRIPTDIR source=common.sh source=debian-image.sh
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/debian-image.sh"

# The folder belongs to the user of compose.yaml; a volume takes that over.
# shellcheck disable=SC2016 # mmdebstrap's shell expands it
debian_image monitoring-image "$PROMETHEUS_IMAGE" 'ENTRYPOINT ["prometheus"]' "with its package prometheus" \
    --include=prometheus,ca-certificates --customize-hook='mkdir "$1/prometheus" && chown 65534:65534 "$1/prometheus"'
