#!/usr/bin/env bash
# Collect what the image installs into build/wheels, so that the build itself needs no package index.
#
#   docker/steps/wheels.sh           all: then `make serve` and `make test` set up without an index, too
#   docker/steps/wheels.sh image     what the image's build needs: what it serves with, and what makes int8 of models
#   docker/steps/wheels.sh serve     without the latter
#   docker/steps/wheels.sh loadtest  what sends load, and nothing else
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source-path=SCRIPTDIR source=../../requirements/torch.sh
. requirements/torch.sh

PYTHON="${PYTHON:-python3}"                 # runs pip here; the wheels are for IMAGE_PYTHON
IMAGE_PYTHON="${IMAGE_PYTHON:-3.11}"        # the Python of BASE_IMAGE
IMAGE_ARCH="${IMAGE_ARCH:-$(uname -m)}"
WHEELS_DIR="${WHEELS_DIR:-build/wheels}"
MIN_FREE_GB="${MIN_FREE_GB:-2}"
NEWEST_GLIBC_MINOR=36                       # Debian 12's

what="${1:-all}"
tools="build/wheels-venv"
pip_tag="cp${IMAGE_PYTHON/./}"
# requirements/install.sh computes the same, to know whether this folder has what it needs.
wanted() { # wanted LOCK… : for which Python, and which locks
    echo "$pip_tag $(cd requirements && cat "$@" | sha256sum | cut -c1-16)"
}
SERVE_LOCKS=(build.txt torch-cpu.txt serve.txt apache.txt)
LOADTEST_LOCKS=(build.txt loadtest.txt)
DEV_LOCKS=("${SERVE_LOCKS[@]}" loadtest.txt dev.txt)
QUANTISE_LOCKS=(quantise.txt)

# --- preflight: touches nothing ---------------------------------------------------------------------------------------

case "$what" in
    all | dev | image | loadtest | serve) ;;
    *) fail 2 "needs image, serve, loadtest or nothing, found «$what»." "docker/steps/wheels.sh image" ;;
esac
# What models with code and plugins need beyond the bundle; each names it with hashes.
shopt -s nullglob
model_locks=(models/*/*/requirements.lock plugins/*/requirements.lock)
shopt -u nullglob
wanted_models() { echo "$pip_tag $(cat /dev/null "${model_locks[@]}" | sha256sum | cut -c1-16)"; }
is_complete() { # is_complete SET LOCK…
    [ "$(cat "$WHEELS_DIR/.complete-$1" 2>/dev/null)" = "$(wanted "${@:2}")" ]
}
has_all() {
    if [ "$what" = loadtest ]; then
        is_complete loadtest "${LOADTEST_LOCKS[@]}" || is_complete dev "${DEV_LOCKS[@]}"
        return
    fi
    is_complete serve "${SERVE_LOCKS[@]}" || return
    [ ${#model_locks[@]} -eq 0 ] || [ "$(cat "$WHEELS_DIR/.complete-models" 2>/dev/null)" = "$(wanted_models)" ] || return
    [ "$what" != serve ] || return 0
    is_complete quantise "${QUANTISE_LOCKS[@]}" || return
    [ "$what" = image ] || is_complete dev "${DEV_LOCKS[@]}"
}
if has_all; then
    say wheels "$WHEELS_DIR holds them all"
    exit 0
fi
command -v "$PYTHON" >/dev/null || fail 2 "needs a Python to run pip with, found no $PYTHON." "apt-get install python3-venv"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail 2 "needs Python's venv, found $PYTHON without it." "apt-get install python3-venv"
mkdir -p "$WHEELS_DIR/dev" "$WHEELS_DIR/quantise" "$WHEELS_DIR/models"
free_gb=$(($(df -Pk "$WHEELS_DIR" | awk 'NR == 2 {print $4}') / 1048576))
[ "$free_gb" -ge "$MIN_FREE_GB" ] ||
    fail 2 "needs $MIN_FREE_GB GB of free disk for $WHEELS_DIR, found $free_gb GB." "make room, or set WHEELS_DIR."

# --- from here on, something changes ----------------------------------------------------------------------------------

log="build/wheels.log"
: >"$log"
give_up() {
    tail -n 8 "$log" | sed 's/^/    /' >&2
    fail 1 "$1" "${2:-reach a package index, or copy build/wheels from a machine that does, then: make wheels}"
}

platforms=()
for minor in $(seq "$NEWEST_GLIBC_MINOR" -1 5); do platforms+=(--platform "manylinux_2_${minor}_$IMAGE_ARCH"); done
platforms+=(--platform "manylinux2014_$IMAGE_ARCH" --platform "manylinux2010_$IMAGE_ARCH" --platform "manylinux1_$IMAGE_ARCH")

into="$WHEELS_DIR"
download() { # download OPTION… : what the image's Python can use, whatever Python runs here
    "$tools/bin/python" -m pip download \
        --quiet \
        --progress-bar off \
        --disable-pip-version-check \
        --dest "$into" \
        --find-links "$WHEELS_DIR" \
        --find-links "$WHEELS_DIR/dev" \
        --find-links "$WHEELS_DIR/quantise" \
        --no-deps \
        --require-hashes \
        "$@" >>"$log" 2>&1
}
download_wheels() {
    download \
        --only-binary :all: \
        --implementation cp \
        --python-version "$IMAGE_PYTHON" \
        --abi "$pip_tag" --abi abi3 --abi none \
        "${platforms[@]}" \
        "$@"
}
without_torch() { awk '/^[a-z]/ {skip = /^torch==/} !skip' requirements/serve.txt; }

if ! "$tools/bin/python" -c 'import setuptools, wheel' 2>/dev/null; then
    say tools "pip and build tools into $tools"
    "$PYTHON" -m venv "$tools" >>"$log" 2>&1 || give_up "needs a virtual environment for pip; it was not made."
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/build.txt >>"$log" 2>&1 || give_up "needs pip's build tools; they could not be had."
fi

say wheels "build tools"
download_wheels -r requirements/build.txt || give_up "needs the files that requirements/build.txt names."
if [ "$what" = loadtest ]; then
    say wheels "what sends load"
    into="$WHEELS_DIR/dev"
    download_wheels -r requirements/loadtest.txt || give_up "needs the files that requirements/loadtest.txt names."
    wanted "${LOADTEST_LOCKS[@]}" >"$WHEELS_DIR/.complete-loadtest"
    exit 0
fi
say wheels "torch, CPU build (190 MB)"
if with_torch_index download_wheels; then
    without_torch >build/serve-without-torch.txt
    serve=build/serve-without-torch.txt
elif [ "$IMAGE_ARCH" = x86_64 ]; then
    # The index's build for this architecture is linked to CUDA and does not import in an image without it.
    give_up "$(torch_missing "$pip_tag" "$IMAGE_ARCH")" "$(torch_next "$pip_tag" "$IMAGE_ARCH")"
else
    serve=requirements/serve.txt
fi
say wheels "what the service imports"
download_wheels -r "$serve" || give_up "needs the files that requirements/serve.txt names."
say wheels "mod_wsgi's source"
# pip asks a source for its metadata, and mod_wsgi's asks apxs for paths; none are needed to fetch it.
APXS=/bin/true download --no-build-isolation --no-binary mod_wsgi -r requirements/apache.txt ||
    give_up "needs the source that requirements/apache.txt names."
if [ ${#model_locks[@]} -gt 0 ]; then
    say wheels "what models with code and plugins need"
    # Apart, because only their own environments take them.
    into="$WHEELS_DIR/models"
    for lock in "${model_locks[@]}"; do
        download_wheels --find-links "$into" -r "$lock" ||
            give_up "needs the files that $lock names, for Python $IMAGE_PYTHON on $IMAGE_ARCH." \
                "reach a package index; where the lock is of another Python, add the model (plugin-install the plugin) anew with that one, then: make wheels"
    done
    for file in "$into"/*; do
        grep -qhF "$(sha256sum "$file" | cut -d' ' -f1)" "${model_locks[@]}" || rm -f "$file"
    done
    wanted_models >"$WHEELS_DIR/.complete-models"
fi
if [ "$what" != serve ]; then
    say wheels "what makes int8 of models"
    # Apart, because the image itself has no use for them.
    into="$WHEELS_DIR/quantise"
    download_wheels -r requirements/quantise.txt || give_up "needs the files that requirements/quantise.txt names." \
        "reach a package index, or copy build/wheels from a machine that does; or without: make image MODEL_BUILD_IN_IMAGE=no"
    wanted "${QUANTISE_LOCKS[@]}" >"$WHEELS_DIR/.complete-quantise"
fi
if [ "$what" = all ] || [ "$what" = dev ]; then
    say wheels "what tests and checks need"
    # Apart, because the image's build has no use for them.
    into="$WHEELS_DIR/dev"
    for lock in loadtest dev; do
        download_wheels -r "requirements/$lock.txt" || give_up "needs the files that requirements/$lock.txt names."
    done
    download_wheels -r examples/applications/ledger/requirements.txt ||
        give_up "needs the files that examples/applications/ledger/requirements.txt names."
    wanted "${DEV_LOCKS[@]}" >"$WHEELS_DIR/.complete-dev"
fi

# What an earlier lock named goes: a file stays when one of the locks holds its hash.
for file in "$WHEELS_DIR"/*.whl "$WHEELS_DIR"/*.tar.gz "$WHEELS_DIR"/dev/*.whl "$WHEELS_DIR"/quantise/*.whl; do
    if [ -f "$file" ] && ! grep -qhF "$(sha256sum "$file" | cut -d' ' -f1)" requirements/*.txt examples/applications/*/requirements.txt; then
        say removed "${file##*/}: no lock names it"
        rm -f "$file"
    fi
done
wanted "${SERVE_LOCKS[@]}" >"$WHEELS_DIR/.complete-serve"
say wheels "$(find "$WHEELS_DIR" -name '*.whl' -o -name '*.tar.gz' | wc -l) files, $(du -sm "$WHEELS_DIR" | cut -f1) MB in $WHEELS_DIR"
