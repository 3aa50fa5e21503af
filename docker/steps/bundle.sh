#!/usr/bin/env bash
# Make one signed file for machines without internet: `make bundle`. docker/bundle/install.sh, which is in it, installs it.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

BUILD="${BUILD:-yes}"                       # no: the image that is there
SINCE="${SINCE:-}"                          # an older bundle or image: a difference bundle, for machines that have that image
PACKAGES="${PACKAGES:-yes}"                 # no: without Debian packages of a container engine
WHEELS="${WHEELS:-no}"                      # yes: also what `make serve` needs without a container
SBOM="${SBOM:-yes}"                         # no: without the list of contents
ZSTD_LEVEL="${ZSTD_LEVEL:-9}"
OUT="${OUT:-build/bundle}"
BUNDLE_KEY="${BUNDLE_KEY:-$SECRETS_DIR/bundle_key}"

manifest() { tar --extract --to-stdout --wildcards --file "$1" 'cask-*/MANIFEST' 2>/dev/null | sed -n "s/^$2=//p"; } # manifest BUNDLE NAME

# --- preflight: touches nothing ---------------------------------------------------------------------------------------

for name in PACKAGES WHEELS SBOM BUILD; do
    case "${!name}" in yes | no) ;; *) fail 2 "needs $name to be yes or no, found «${!name}»." "make bundle $name=yes" ;; esac
done
need_engine
for program in zstd ssh-keygen; do
    command -v "$program" >/dev/null || fail 2 "needs $program, found none." "apt-get install zstd openssh-client"
done
needs_image="" needs_words="" has_layers="" serve_packages=""
if [ -f "$SINCE" ]; then
    needs_image="$(manifest "$SINCE" image_id)" needs_words="$(manifest "$SINCE" image)" has_layers="$(manifest "$SINCE" layers)"
    [ -n "$has_layers" ] || fail 2 "needs SINCE to be a bundle or an image, found $SINCE to be another file." "make bundle SINCE=build/bundle/cask-….tar"
elif [ -n "$SINCE" ]; then
    read -r needs_image has_layers < <("$DOCKER" image inspect -f '{{.Id}} {{join .RootFS.Layers " "}}' "$SINCE" 2>/dev/null || true)
    needs_words="$SINCE"
    [ -n "$has_layers" ] || fail 2 "needs SINCE to be a bundle or an image, found neither of the name «$SINCE»." "docker images cask; ls build/bundle"
fi

# --- from here on, something changes ----------------------------------------------------------------------------------

docker/steps/bundle-key.sh
if [ "$BUILD" = yes ]; then docker/steps/build.sh | grep -v '^Next:'; fi
"$DOCKER" image inspect "$IMAGE" >/dev/null 2>&1 || fail 2 "needs the image $IMAGE, found none." "make bundle, without BUILD=no"
began=$SECONDS
tagged="$(revision_tag "$IMAGE")"
label() { "$DOCKER" image inspect -f "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$IMAGE"; }
layers="$("$DOCKER" image inspect -f '{{join .RootFS.Layers " "}}' "$IMAGE")"
name="cask-$(label version)-${tagged##*:}"
mkdir -p "$OUT"
work="$(mktemp -d "$OUT/.work.XXXXXX")"
trap 'rm -rf "$work"' EXIT
folder="$work/$name"
mkdir -p "$folder/site"

# Without the layers that the machine has: `docker load` looks a layer up before it opens its file.
take_layers_out() { # take_layers_out FOLDER : of a saved image
    local file had=($has_layers) new=($layers) at=0
    while read -r file; do
        if [ "${had[at]:-none}" = "${new[at]}" ]; then echo "$1/$file" >>"$work/out"
        elif [ -L "$1/$file" ]; then cp -L "$1/$file" "$work/layer" && mv -f "$work/layer" "$1/$file"; fi
        at=$((at + 1))
    done < <(sed 's/.*"Layers":\[\([^]]*\)\].*/\1/' "$1/manifest.json" | tr ',' '\n' | tr -d '"')
    [ -s "$work/out" ] || fail 2 "needs an image that shares layers with $needs_words, found none shared." "make bundle, without SINCE"
    xargs -d '\n' rm -f <"$work/out"
}
if [ -z "$SINCE" ]; then
    say image "$tagged, packed (half a minute)"
    "$DOCKER" save "$tagged" | zstd -q -T0 "-$ZSTD_LEVEL" -o "$folder/image.tar.zst"
else
    mkdir "$work/saved"
    "$DOCKER" save "$tagged" | tar -x -C "$work/saved"
    take_layers_out "$work/saved"
    say image "$tagged, without $(wc -l <"$work/out") layers that $needs_words has"
    tar -c -C "$work/saved" . | zstd -q -T0 -19 -o "$folder/image.tar.zst"
    PACKAGES=no
fi

# What the steps read, documents, and the service itself, for `make serve`; nothing of this machine or of another site.
site=(.flaskenv CHANGELOG.md LICENSE Makefile README.md apache app cask docker docs env flask.wsgi requirements)
if [ -z "$SINCE" ]; then site+=(models $([ ! -d plugins ] || echo plugins)); else site+=(models/samples); fi
if [ "$WHEELS" = yes ]; then
    docker/steps/wheels.sh serve
    serve_packages="$(docker/bundle/packages.sh --serve)"
    mkdir -p "$folder/site/build/wheels"
    cp -r build/wheels/*.whl build/wheels/*.tar.gz build/wheels/models build/wheels/.complete-serve "$folder/site/build/wheels"
fi
tar -c --exclude __pycache__ --exclude '*.pyc' --exclude 'models/*/*/environment' --exclude 'plugins/*/environment' --exclude env/local.env \
    --dereference "${site[@]}" | tar -x -C "$folder/site"
suite=""
if [ "$PACKAGES" = yes ]; then
    docker/bundle/packages.sh "$folder/packages" "$WHEELS"
    suite="$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)"
fi
if [ "$SBOM" = yes ]; then
    tools="build/bundle-venv"
    if ! "$tools/bin/python" -c 'import cyclonedx' 2>/dev/null; then
        { python3 -m venv "$tools" && "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
            -r requirements/bundle.txt; } >build/bundle.log 2>&1 ||
            fail 1 "needs the packages that requirements/bundle.txt names; they could not be had (build/bundle.log)." "reach a package index, or without the list of contents: make bundle SBOM=no"
    fi
    say contents "$("$tools/bin/python" docker/bundle/sbom.py "$DOCKER" "$tagged" "$(label version)" "$folder/sbom.cdx.json") (CycloneDX)"
fi
cp docker/bundle/install.sh docker/bundle/README.txt "$folder"
{
    for pair in "version=$(label version)" "revision=$(label revision)" "image=$tagged" \
        "image_mb=$(($(zstd -q -dc "$folder/image.tar.zst" | wc -c) / 1000000))" "image_id=$("$DOCKER" image inspect -f '{{.Id}}' "$IMAGE")" "architecture=$(uname -m)" "packages_suite=$suite" \
        "serve_packages=$serve_packages" "needs_image=$needs_image" "needs_words=$needs_words" "layers=$layers"; do echo "$pair"; done
} >"$folder/MANIFEST"

file="$OUT/$name${SINCE:+-since-${needs_words##*:}}.tar"
docker/bundle/pack.sh "$folder" "$BUNDLE_KEY" "$work/packed"
mv "$work/packed" "$file"
cp docker/bundle/install.sh "$BUNDLE_KEY.pub" "$OUT"
say bundle "$file: $(stat -c %s "$file" | awk '{printf "%.1f MB", $1 / 1e6}'), in $((SECONDS - began)) s, of which"
du -sb "$folder"/* | sort -rn | awk '{sub(/.*\//, "", $2); if ($1 > 1e5) printf "    %6.1f MB  %s\n", $1 / 1e6, $2}'
echo "Next: take it and $OUT/install.sh there, and ${BUNDLE_KEY##*/}.pub by another way; there: bash install.sh ${file##*/} --key ${BUNDLE_KEY##*/}.pub"
