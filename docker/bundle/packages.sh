#!/usr/bin/env bash
# Collect a container engine's Debian packages, as a folder that apt takes for a mirror: packages.sh FOLDER [yes] | --serve
# What the base image, a minimal Debian, lacks, by apt itself; yes: also what `make serve` needs.
# --serve: print the names of the latter.
# shellcheck source-path=SCRIPTDIR source=../steps/common.sh
. "$(dirname "$0")/../steps/common.sh"

mapfile -t serve < <(sed -n '/^SERVE_PACKAGES=(/,/^)/s/^    \([a-z0-9-]*\) .*/\1/p' requirements/install.sh)
if [ "$1" = --serve ]; then
    echo "${serve[*]}"
    exit 0
fi
folder="$(realpath -m "$1")" with_serve="${2:-no}"
PACKAGES=(apparmor docker-compose docker.io iptables openssh-client procps zstd)
if [ "$with_serve" = yes ]; then
    PACKAGES+=("${serve[@]}")
fi
NEXT="make the bundle on Debian 12, or without packages: make bundle PACKAGES=no"

[ "$(sed -n 's/^ID=//p' /etc/os-release)" = debian ] && command -v apt-get >/dev/null ||
    fail 2 "needs apt and Debian to collect packages for Debian, found $(sed -n 's/^PRETTY_NAME=//p' /etc/os-release)." "$NEXT"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/lists/partial" "$work/archives/partial"
choose_docker
# Without that image, all that they need is collected, to the C library.
"$DOCKER" run --rm --network none --entrypoint cat "$BASE_IMAGE" /var/lib/dpkg/status >"$work/status" 2>/dev/null || : >"$work/status"
apt=(apt-get -qq -o "Dir::State::status=$work/status" -o "Dir::State::lists=$work/lists" -o "Dir::Cache::archives=$work/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
{ "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends --download-only "${PACKAGES[@]}"; } >"$work/log" 2>&1 ||
    { tail -n 5 "$work/log" | sed 's/^/    /' >&2; fail 1 "needs apt to fetch ${PACKAGES[*]}; it did not (above)." "$NEXT"; }
mv "$work"/archives/*.deb "$folder"
cd "$folder"
for file in *.deb; do
    case "$file" in *%*) mv "$file" "${file//%3a/_}"; file="${file//%3a/_}" ;; esac
    dpkg-deb -f "$file"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$file" "$(stat -c %s "$file")" "$(sha256sum "$file" | cut -d ' ' -f 1)"
done >Packages
say packages "$(ls -- *.deb | wc -l) files, $(du -sm . | cut -f1) MB of Debian"
