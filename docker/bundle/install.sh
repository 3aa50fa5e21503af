#!/usr/bin/env bash
# Install Cask from a bundle, on a machine without internet; see usage() below, or docs/install.md.
# It stands alone: it needs bash, GNU coreutils, tar, sed, awk and ssh-keygen, and no internet, git, make or Python.
set -eu -o pipefail

TRAILER_BYTES=4096                          # of the signature behind the tar (pack.sh)
KEPT_TREES=3
PREFIX=/opt/cask KEY="" UNSIGNED="" ENGINE="" GIVEN_ENV="" GIVEN_PORT="" LISTEN="" SECRETS="" PROJECT="" ACTION=install BUNDLE=""
VOLUMES=no YES="" SERVE="" TAKE_OVER="" SETTINGS=()

usage() {
    cat <<'TEXT'
install.sh BUNDLE --key PUBLIC_KEY     install, or upgrade what is installed; its state stays
install.sh --verify BUNDLE --key …     only look whether every byte is as it was signed
install.sh --rollback                  return to what served before the last upgrade
install.sh --uninstall [--volumes]     stop and remove; state, secrets and settings stay, unless --volumes

  --key FILE         the public key that the bundle is signed with, had from its maker by another way.
                     The first install keeps it; an upgrade needs the option no more
  --unsigned         take a bundle without knowing who signed it; damage is still found
  --env ENV          dev, test, staging or prod (else what it is; at first asked for; prod). Another one changes it:
                     tokens, jobs, secrets and local.env stay
  --port PORT        where it answers (else asked for; as env/ENV.env says)
  --listen HOST      which address of this machine callers reach: 127.0.0.1 is none but its own programs (else as
                     env/ENV.env says: every one in staging and prod)
  --set NAME=VALUE   a setting for local.env; as often as you like
  --secrets FOLDER   files of secrets, each named as its setting in lower case (redis_url); copied
  --engine           install Docker's engine from the bundle where none is (else asked for)
  --serve            without a container: prepare `make serve` (needs a bundle made with WHEELS=yes; Debian)
  --prefix FOLDER    where it lies (/opt/cask)
  --project NAME     a second service on this machine, with a prefix and a port of its own (cask)
  --take-over        go on with the state of a service that was not installed in this prefix
  --yes              ask nothing
TEXT
}

# sudo leaves out where Compose by hand lies; a strict mask would close what the service's user reads.
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umask 022

say() { printf '  %-12s %s\n' "$1" "$2"; }
fail() { # fail STATUS WHAT NEXT
    printf 'FAIL: %s\nNext: %s\n' "$2" "$3" >&2
    exit "$1"
}

# What nobody foresaw is said too.
set -E
trap 'printf "FAIL: line %s of install.sh ended with status %s.\nNext: run it again; it goes on where it stopped\n" "$LINENO" "$?" >&2' ERR

# --- options ----------------------------------------------------------------------------------------------------------

while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h) usage; exit 0 ;;
        --verify | --rollback | --uninstall) ACTION="${1#--}" ;;
        --unsigned) UNSIGNED=yes ;;
        --engine) ENGINE=yes ;;
        --serve) SERVE=yes ;;
        --volumes) VOLUMES=yes ;;
        --take-over) TAKE_OVER=yes ;;
        --yes) YES=yes ;;
        --key | --env | --port | --listen | --set | --secrets | --prefix | --project)
            [ $# -gt 1 ] || fail 2 "needs a value after $1, found nothing." "install.sh --help"
            case "$1" in
                --key) KEY="$2" ;;
                --env) GIVEN_ENV="$2" ;;
                --port) GIVEN_PORT="$2" ;;
                --listen) LISTEN="$2" ;;
                --set) SETTINGS+=("$2") ;;
                --secrets) SECRETS="$2" ;;
                --prefix) PREFIX="$(realpath -m -- "$2")" ;;
                --project) PROJECT="$2" ;;
            esac
            shift ;;
        -*) fail 2 "knows no option «$1»." "install.sh --help" ;;
        *) [ -z "$BUNDLE" ] || fail 2 "needs one bundle, found «$BUNDLE» and «$1»." "install.sh --help"
           BUNDLE="$1" ;;
    esac
    shift
done
[ -z "$UNSIGNED" ] || KEY=""
for name in BUNDLE KEY SECRETS; do [ -z "${!name}" ] || printf -v "$name" %s "$(realpath -m -- "${!name}")"; done
TREES="$PREFIX/releases"
CURRENT="$PREFIX/current"
cask() { # cask TREE STEP [NAME=value …] : as that tree has it
    CASK_PREFIX="$PREFIX" "$1/docker/bundle/cask" "${@:2}"
}
of_file() { # of_file FILE NAME : the value of a line NAME=value; never run as a shell would
    { sed -n "s/^$2=//p" "$1" 2>/dev/null || true; } | tail -n 1
}
is_terminal() { [ -z "$YES" ] && [ -t 0 ] && [ -t 1 ]; }
need_installed() {
    [ -e "$CURRENT/MANIFEST" ] || fail 1 "needs an installed Cask in $PREFIX, found none." "install.sh BUNDLE --key PUBLIC_KEY (or --prefix)"
}

# --- going back, going away -------------------------------------------------------------------------------------------

point() { # point LINK TREE : replaced in one step
    ln -sfn "$2" "$PREFIX/.link" && mv -Tf "$PREFIX/.link" "$PREFIX/$1"
}

if [ "$ACTION" = rollback ]; then
    need_installed
    served="$(readlink "$CURRENT")" before="$(readlink "$PREFIX/previous" || true)"
    [ -n "$before" ] && [ -e "$PREFIX/$before/MANIFEST" ] ||
        fail 1 "There is nothing to go back to: $served is the first in $PREFIX." "$PREFIX/cask status"
    cask "$CURRENT" rollback
    point current "$before"
    point previous "$served"
    cask "$CURRENT" smoke
    say rollback "from ${served##*/} to ${before##*/}; settings in local.env and secrets/ are as they were"
    echo "Next: install.sh --rollback goes forward again"
    exit 0
fi
if [ "$ACTION" = uninstall ]; then
    need_installed
    cask "$CURRENT" down "VOLUMES=$VOLUMES"
    rm -rf "$TREES" "$CURRENT" "$PREFIX/previous" "$PREFIX/cask"
    if [ "$VOLUMES" = yes ]; then
        rm -rf "$PREFIX"
        say removed "$PREFIX, and all that Cask kept. The engine and the image stay: docker image rm"
    else
        say removed "the service. State (the engine's volumes), local.env and secrets/ stay in $PREFIX"
        echo "Next: install.sh BUNDLE serves again with them; docker volume ls shows the volumes"
    fi
    exit 0
fi

# --- whose service it is ----------------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null; }
PROJECT_NOW="$(of_file "$PREFIX/site.conf" COMPOSE_PROJECT_NAME)"
PROJECT="${PROJECT:-${PROJECT_NOW:-cask}}"
[ -z "$PROJECT_NOW" ] || [ "$PROJECT" = "$PROJECT_NOW" ] ||
    fail 2 "needs --project to stay «$PROJECT_NOW» in $PREFIX, found «$PROJECT»." "take a --prefix of its own for it"
# Two prefixes with one name would be one service: the second would take the first's place, its port and its state.
if [ "$ACTION" = install ] && [ -z "$PROJECT_NOW$TAKE_OVER$SERVE" ] && has docker && docker volume inspect "${PROJECT}_state" >/dev/null 2>&1; then
    fail 2 "needs a project that is new on this machine for the new prefix $PREFIX, found that a service «$PROJECT» has its state here." \
        "for a second service add --project NAME and --port; to go on with that one's state, its --prefix, or --take-over; nothing was touched"
fi

# --- the bundle: nothing is touched before all of it is known to be whole ---------------------------------------------

[ -n "$BUNDLE" ] || { usage >&2; exit 2; }
[ -f "$BUNDLE" ] && [ -r "$BUNDLE" ] || fail 2 "needs a bundle that can be read, found none at $BUNDLE." "install.sh --help"
if [ -z "$KEY$UNSIGNED" ] && [ -e "$PREFIX/bundle_key.pub" ]; then KEY="$PREFIX/bundle_key.pub"; fi
[ -n "$KEY$UNSIGNED" ] || fail 2 "needs the public key that the bundle is signed with, found none given." \
    "install.sh $BUNDLE --key bundle_key.pub (its maker gives it to you another way than the bundle)"
SCRATCH="$(mktemp -d)"
UNPACKED=""
trap 'rm -rf "$SCRATCH" "${UNPACKED:-$SCRATCH}"' EXIT
AGAIN="fetch it again, whole, and compare its size; nothing was touched"

verify_signature() {
    tail -c "$TRAILER_BYTES" -- "$BUNDLE" >"$SCRATCH/trailer"
    [ "$(head -n 1 "$SCRATCH/trailer" | tr -d '\0')" = "cask-bundle 1" ] ||
        fail 3 "needs a signature at the end of $BUNDLE, found it cut off, or no bundle." "$AGAIN"
    sed -n '/BEGIN SSH/,/END SSH/p' "$SCRATCH/trailer" >"$SCRATCH/signature"
    # One way to write it: a changed byte that means the same is a changed byte.
    { printf 'cask-bundle 1\n-----BEGIN SSH SIGNATURE-----\n'
      sed '1d;$d' "$SCRATCH/signature" | base64 -d 2>/dev/null | base64 -w 70
      printf -- '-----END SSH SIGNATURE-----\n'
      printf "%${TRAILER_BYTES}s" '' | tr ' ' '\n'; } | head -c "$TRAILER_BYTES" >"$SCRATCH/same" || true
    cmp -s "$SCRATCH/same" "$SCRATCH/trailer" || fail 3 "needs the signature as it was written, found it changed or cut off." "$AGAIN"
    if [ -n "$KEY" ]; then
        grep -qE '^(ssh|ecdsa|sk-)[^ ]* [A-Za-z0-9+/=]+' "$KEY" 2>/dev/null ||
            fail 2 "needs a public key of ssh-keygen in $KEY, found none." "give the file bundle_key.pub of the bundle's maker"
        sed -E 's/^([^ ]+ [^ ]+).*/bundle \1/' "$KEY" >"$SCRATCH/signers"
        set -- verify -f "$SCRATCH/signers" -I bundle
    else
        set -- check-novalidate
    fi
    command -v ssh-keygen >/dev/null || fail 2 "needs ssh-keygen to verify the signature, found none." "install openssh-client, from 8.1"
    head -c "-$TRAILER_BYTES" -- "$BUNDLE" | ssh-keygen -Y "$@" -n cask-bundle -s "$SCRATCH/signature" >"$SCRATCH/said" 2>&1 ||
        fail 3 "needs every byte of $BUNDLE as it was signed${KEY:+ with $KEY}, found otherwise: it was changed, damaged, or signed with another key." "$AGAIN"
    say signature "$(sed -n 's/.* key \(SHA256:[^ ]*\).*/\1/p' "$SCRATCH/said")$([ -n "$KEY" ] || echo ', by whom is not known (--unsigned)')"
}

# The owner of the key may still err: nothing but files and folders, below one folder.
verify_names() {
    tar --list --verbose --file "$BUNDLE" >"$SCRATCH/long" 2>/dev/null && tar --list --quoting-style escape --file "$BUNDLE" >"$SCRATCH/names" 2>/dev/null ||
        fail 3 "needs a tar, found $BUNDLE to be none." "$AGAIN"
    NAME="$(head -n 1 "$SCRATCH/names")"
    NAME="${NAME%%/*}"
    case "$NAME" in cask-*) ;; *) fail 3 "needs all in a folder cask-…, found «$NAME»." "$AGAIN" ;; esac
    local odd
    odd="$(grep -v '^[-d]' "$SCRATCH/long" | head -n 1 || true)"
    [ -z "$odd" ] || fail 3 "needs files and folders only, found: $odd" "ask the bundle's maker; nothing was touched"
    odd="$(grep -nEv "^$NAME/" "$SCRATCH/names" | head -n 1 || true)"
    [ -n "$odd" ] || odd="$(grep -E '(^|/)\.\.(/|$)' "$SCRATCH/names" | head -n 1 || true)"
    [ -n "$odd" ] || odd="$(grep -v '/$' "$SCRATCH/names" | LC_ALL=C sort | uniq -d | head -n 1)"
    [ -z "$odd" ] || fail 3 "needs each name once and below $NAME/, found: $odd" "ask the bundle's maker; nothing was touched"
}

unpack() { # sets UNPACKED: beside the place where it will lie, as long as it is not whole
    local need_mb free_mb folder="$SCRATCH"
    [ "$ACTION" = verify ] || folder="$PREFIX"
    mkdir -p "$folder"
    need_mb=$(($(stat -c %s -- "$BUNDLE") / 1000000 + 50))
    free_mb=$(($(df -Pk "$folder" | awk 'NR == 2 {print $4}') / 1000))
    [ "$free_mb" -ge "$need_mb" ] || fail 2 "needs $need_mb MB of free disk for $folder, found $free_mb MB." "make room, or --prefix (TMPDIR for --verify)"
    UNPACKED="$(mktemp -d "$folder/.unpack.XXXXXX")"
    tar --extract --no-same-owner --no-same-permissions --file "$BUNDLE" -C "$UNPACKED" 2>"$SCRATCH/said" ||
        fail 3 "needs to unpack $BUNDLE: $(head -n 1 "$SCRATCH/said")" "$AGAIN"
    cd "$UNPACKED/$NAME"
    find . -type f ! -path ./SHA256SUMS -printf '%P\n' | LC_ALL=C sort >"$SCRATCH/there"
    sed -E 's/^[0-9a-f]{64}  //' SHA256SUMS 2>/dev/null | LC_ALL=C sort >"$SCRATCH/summed" || true
    cmp -s "$SCRATCH/there" "$SCRATCH/summed" || fail 3 "needs a checksum for each file, found: $(diff "$SCRATCH/there" "$SCRATCH/summed" | sed -n 2p)" "$AGAIN"
    sha256sum --check --quiet --strict SHA256SUMS >"$SCRATCH/said" 2>&1 || fail 3 "needs each file as SHA256SUMS says, found: $(head -n 1 "$SCRATCH/said")" "$AGAIN"
    say checksums "$(wc -l <SHA256SUMS) files are as they were made"
}

verify_signature
verify_names
unpack
manifest() { of_file "$UNPACKED/$NAME/MANIFEST" "$1"; }
IMAGE="$(manifest image)" IMAGE_ID="$(manifest image_id)"
if [ "$ACTION" = verify ]; then
    say whole "$NAME: Cask $(manifest version), revision $(manifest revision), for $(manifest architecture)"
    exit 0
fi

# --- what this machine has, and what is asked -------------------------------------------------------------------------

NEXT_TIME="mend that, then: $0 $BUNDLE"
[ "$(manifest architecture)" = "$(uname -m)" ] ||
    fail 2 "needs a bundle for this machine's $(uname -m), found one for $(manifest architecture)." "make the bundle on a machine of that kind"

ask() { # ask QUESTION DEFAULT : what was typed, or the default
    local answer=""
    if is_terminal; then read -r -p "  $1 [$2]: " answer; fi
    printf '%s' "${answer:-$2}"
}
ENV_NOW="$(of_file "$PREFIX/site.conf" ENV)"
[ -n "$GIVEN_ENV$ENV_NOW" ] || GIVEN_ENV="$(ask 'Environment: dev, test, staging or prod' prod)"
SITE_ENV="${GIVEN_ENV:-$ENV_NOW}"
case "$SITE_ENV" in dev | test | staging | prod) ;; *) fail 2 "needs --env to be dev, test, staging or prod, found «$SITE_ENV»." "$NEXT_TIME --env prod" ;; esac
if [ -z "$GIVEN_PORT" ] && [ ! -e "$PREFIX/local.env" ]; then
    GIVEN_PORT="$(ask Port "$(of_file "$UNPACKED/$NAME/site/env/$SITE_ENV.env" PORT)")"
fi
case "$GIVEN_PORT" in *[!0-9]*) fail 2 "needs --port to be a number, found «$GIVEN_PORT»." "$NEXT_TIME --port 8000" ;; esac
for setting in "${SETTINGS[@]}"; do
    [[ "$setting" =~ ^[A-Z][A-Z0-9_]*=[^[:cntrl:]]*$ ]] || fail 2 "needs --set NAME=VALUE on one line, found «$setting»." "$NEXT_TIME --set CACHE=off"
done
[ -z "$SECRETS" ] || [ -d "$SECRETS" ] || fail 2 "needs --secrets to be a folder, found none at $SECRETS." "$NEXT_TIME"

has_compose() { docker compose version >/dev/null 2>&1 || has docker-compose; }
answers() { has docker && docker info >/dev/null 2>&1; }

# The engine and what goes with it, by apt from the bundle alone; apt takes what is missing here and no more.
install_packages() { # install_packages NAME…
    local suite apt
    suite="$(of_file /etc/os-release VERSION_CODENAME)"
    [ -d packages ] && [ "$suite" = "$(manifest packages_suite)" ] && has apt-get ||
        fail 2 "needs $*, and has packages for $(of_file "$UNPACKED/$NAME/MANIFEST" packages_suite | sed 's/^$/no system/') only; this is $(of_file /etc/os-release PRETTY_NAME)." \
            "install Docker Engine 20.10 or later, Compose and zstd from your own source, then: $0 $BUNDLE"
    [ "$(id -u)" -eq 0 ] || fail 2 "needs the superuser to install $*, found «$(id -un)»." "sudo $0 $BUNDLE"
    say packages "$* (from the bundle)"
    mkdir -p "$SCRATCH/lists/partial"
    printf 'deb [trusted=yes] file:%s ./\n' "$PWD/packages" >"$SCRATCH/sources.list"
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o "Dir::Etc::SourceList=$SCRATCH/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$SCRATCH/lists" -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=300 -o DPkg::Use-Pty=0)
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; } >"$SCRATCH/apt.log" 2>&1 ||
        { tail -n 5 "$SCRATCH/apt.log" | sed 's/^/    /' >&2; fail 1 "needs apt to install $*; it did not (above)." "mend what it names, then: $0 $BUNDLE"; }
}
wanted=()
if [ -n "$SERVE" ]; then
    [ -d site/build/wheels ] || fail 2 "needs a bundle with wheels for --serve, found one without." "make bundle WHEELS=yes"
    for name in $(manifest serve_packages); do
        # shellcheck disable=SC2016 # the format is dpkg-query's
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || wanted+=("$name")
    done
elif ! has docker || ! has dockerd && ! answers; then
    if [ -z "$ENGINE" ] && is_terminal; then case "$(ask 'No container engine here. Install Docker from the bundle?' yes)" in y*) ENGINE=yes ;; esac; fi
    [ -n "$ENGINE" ] || fail 2 "needs a container engine, found none." "$0 $BUNDLE --engine installs the one in the bundle; or install Docker Engine 20.10 or later yourself"
    wanted+=(docker.io iptables)
    if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then wanted+=(apparmor); fi
fi
[ -n "$SERVE" ] || has_compose || wanted+=(docker-compose)
[ -n "$SERVE" ] || has zstd || wanted+=(zstd)
[ -n "$SERVE" ] || has ps || wanted+=(procps) # `cask ps`: the engine asks this machine's

[ ! -f site/docker/bundle/cask ] || [ -x site/docker/bundle/cask ] ||
    fail 2 "needs $PREFIX on a file system that runs programs, found it mounted noexec." "$0 $BUNDLE --prefix another folder"

# --- from here on, something changes ----------------------------------------------------------------------------------

[ ${#wanted[@]} -eq 0 ] || install_packages "${wanted[@]}"
if [ -z "$SERVE" ] && ! answers; then
    has apt-get || fail 2 "needs a running container engine, found none that answers." "systemctl enable --now docker, then: $0 $BUNDLE"
    site/docker/steps/engine.sh | grep -v ^Next:
fi

if [ -n "$SERVE" ]; then
    :
elif [ "$(docker image inspect -f '{{.Id}}' "$IMAGE_ID" 2>/dev/null)" = "$IMAGE_ID" ]; then
    docker tag "$IMAGE_ID" "$IMAGE"
    say image "$IMAGE is there"
else
    base="$(manifest needs_image)"
    [ -z "$base" ] || docker image inspect "$base" >/dev/null 2>&1 ||
        fail 2 "needs the image that this difference bundle was made against, $(manifest needs_words) ($base), found it not here." "take the whole bundle: make bundle, without SINCE"
    # `docker load` unpacks what it reads, and then makes layers of it.
    store="$(docker info -f '{{.DockerRootDir}}' 2>/dev/null || true)" need_mb="$(manifest image_mb)"
    need_mb=$((${need_mb:-0} * 2))
    if [ -d "$store" ]; then
        free_mb=$(($(df -Pk "$store" | awk 'NR == 2 {print $4}') / 1000))
        [ "$free_mb" -ge "$need_mb" ] || fail 2 "needs $need_mb MB of free disk for $store to load the image, found $free_mb MB." "make room there, then: $0 $BUNDLE"
    fi
    zstd -q -dc image.tar.zst | docker load >"$SCRATCH/said" 2>&1 ||
        fail 1 "needs the engine to load the image: $(tail -n 1 "$SCRATCH/said")" "$NEXT_TIME"
    [ "$(docker image inspect -f '{{.Id}}' "$IMAGE" 2>/dev/null)" = "$IMAGE_ID" ] ||
        fail 1 "needs the image $IMAGE_ID, found that the engine made another of it." "take the whole bundle, and Docker Engine 20.10 or later"
    say image "$IMAGE loaded"
fi

# What the site owns lies beside the trees and outlives them.
mkdir -p "$TREES"
(umask 077; mkdir -p "$PREFIX/secrets"; touch "$PREFIX/local.env")
put() { # put NAME VALUE : in local.env, in the place of an older line; without the mark that Windows' editors put first
    { LC_ALL=C sed '1s/^\xef\xbb\xbf//' "$PREFIX/local.env" | grep -v "^$1=" || true; printf '%s=%s\n' "$1" "$2"; } >"$PREFIX/local.env.new"
    mv "$PREFIX/local.env.new" "$PREFIX/local.env"
}
[ -z "$GIVEN_PORT" ] || put PORT "$GIVEN_PORT"
[ -z "$LISTEN" ] || put LISTEN_HOST "$LISTEN"
for setting in "${SETTINGS[@]}"; do put "${setting%%=*}" "${setting#*=}"; done
if [ -n "$SECRETS" ]; then (umask 077; for file in "$SECRETS"/*; do cat "$file" >"$PREFIX/secrets/${file##*/}"; done); fi
# What does not start changes no environment: `cask up` notes the one that it started.
[ -n "$ENV_NOW" ] || printf 'ENV=%s\nCOMPOSE_PROJECT_NAME=%s\n' "$SITE_ENV" "$PROJECT" >"$PREFIX/site.conf"
[ -z "$KEY" ] || [ "$KEY" -ef "$PREFIX/bundle_key.pub" ] || cat "$KEY" >"$PREFIX/bundle_key.pub"

tree="$TREES/$NAME"
rm -rf "$tree"
mv site "$tree"
cp MANIFEST sbom.cdx.json "$tree/" 2>/dev/null || cp MANIFEST "$tree/"
ln -s ../../../local.env "$tree/env/local.env"
cp install.sh "$PREFIX/install.sh.new" && mv -f "$PREFIX/install.sh.new" "$PREFIX/install.sh"
served="$(readlink "$CURRENT" || true)"

# As `make config-diff SINCE=…` says it where Python is.
if [ "${ENV_NOW:-$SITE_ENV}" != "$SITE_ENV" ]; then say environment "$ENV_NOW becomes $SITE_ENV; tokens, jobs, secrets and local.env stay"; fi
if [ -e "$CURRENT/env/${ENV_NOW:=$SITE_ENV}.env" ]; then
    LC_ALL=C awk -F = 'FNR == 1 {file++; sub(/^\357\273\277/, "")} !/^[A-Z]/ {next}
        file == 1 {old[$1] = substr($0, length($1) + 2); next}
        file == 2 {new[$1]; value = substr($0, length($1) + 2)
            if (!($1 in old)) print "new setting " $1 "=" value
            else if (old[$1] != value) print "setting " $1 " is " value ", was " old[$1]
            next}
        ($1 in old) && !($1 in new) {print "local.env sets " $1 ", which has no effect any more"}
        END {for (name in old) if (!(name in new)) print "no setting any more: " name}' \
        "$CURRENT/env/$ENV_NOW.env" "$tree/env/$SITE_ENV.env" "$PREFIX/local.env" | while read -r line; do say settings "$line"; done
fi
if [ -n "$SERVE" ]; then
    (cd "$tree" && requirements/install.sh serve) || fail 1 "needs the service's packages to be installed; they were not (above)." "$NEXT_TIME"
    point current "releases/$NAME"
    [ -z "$served" ] || [ "$served" = "releases/$NAME" ] || point previous "$served"
    sed -i "s/^ENV=.*/ENV=$SITE_ENV/" "$PREFIX/site.conf"
    say installed "$NAME in $PREFIX, without a container"
    echo "Next: cd $CURRENT && ENV=$SITE_ENV apache/serve.sh    (in the foreground; apache/stop.sh ends it)"
    exit 0
fi

# Checks the new release before it touches the one that serves, and leaves that one serving where the new one does not start.
cask "$tree" up "ENV=$SITE_ENV" | grep -v '^Next:\|^   *make' || fail 1 "needs the new release to start; it did not (above)." \
    "mend what it names ($PREFIX/local.env, $PREFIX/secrets/), then: $0 $BUNDLE"
point current "releases/$NAME"
if [ -n "$served" ] && [ "$served" != "releases/$NAME" ]; then point previous "$served"; fi
ln -sfn current/docker/bundle/cask "$PREFIX/cask"
find "$TREES" -mindepth 1 -maxdepth 1 -printf '%T@ %p\n' | sort -rn | tail -n +$((KEPT_TREES + 1)) | cut -d ' ' -f 2- | while read -r old; do
    case "$old" in */"$NAME" | "$PREFIX/$(readlink "$PREFIX/previous" || echo none)") ;; *) rm -rf "$old" ;; esac
done

cask "$tree" smoke || fail 1 "needs right answers to the sample images, found other ones (above)." \
    "$PREFIX/cask logs$([ -z "$served" ] || echo "; go back: $PREFIX/install.sh --rollback")"
say installed "$NAME in $PREFIX, ENV=$SITE_ENV. Where a message says make, run $PREFIX/cask"
[ ! -e "$PREFIX/previous" ] || say 'go back' "$PREFIX/install.sh --rollback"
if [ "$SITE_ENV" = staging ] || [ "$SITE_ENV" = prod ]; then
    say 'a token' "$PREFIX/cask shell COMMAND='flask token create NAME'"
fi
