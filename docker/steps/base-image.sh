#!/usr/bin/env bash
# Make the base image out of Debian's packages, for machines that reach no image registry.
# shellcheck source-path=SCRIPTDIR source=common.sh source=debian-image.sh
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/debian-image.sh"

debian_image base-image "$BASE_IMAGE" 'CMD ["bash"]' "essential packages"
echo "Next: make up ENV=prod"
