#!/usr/bin/env bash
# Build the image. What did not change comes from the engine's cache: a second build takes seconds.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

TORCH="${TORCH:-cpu}"                       # cuda: torch from build/wheels/cuda, for GPUS
# CUDA's libraries are an estimate: nobody has built that image yet.
MIN_FREE_GB="${MIN_FREE_GB:-$([ "$TORCH" = cuda ] && echo 20 || echo 5)}"
NETWORK="${NETWORK:-default}"               # host: where containers reach no package mirror
# no: a quicker image, whose first start computes by torch until a build in the background is done.
MODEL_BUILD_IN_IMAGE="${MODEL_BUILD_IN_IMAGE:-yes}"
# no: without the tests of the plugins, which otherwise stop the build, and so a deploy, when one is red.
PLUGIN_TESTS="${PLUGIN_TESTS:-yes}"
SLIM="${SLIM:-no}"                         # yes: without torch, for built models only, on the CPU
STAGE="${STAGE:-}"                          # no image: only what the engine keeps for the next build, as far as this stage

began=$SECONDS
need_engine
need_buildkit
need_base_image
free_gb=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
[ "$free_gb" -ge "$MIN_FREE_GB" ] || fail 2 "needs $MIN_FREE_GB GB of free disk, found $free_gb GB." \
    "$DOCKER image prune; $DOCKER builder prune"
[ -n "$(ls models/*/*/manifest.toml 2>/dev/null)" ] ||
    fail 2 "needs a model in models/, found none." "make model-add (or fetch the whole repository)"
case "$MODEL_BUILD_IN_IMAGE" in
    yes) wheels=image ;;
    no) wheels=serve ;;
    *) fail 2 "needs MODEL_BUILD_IN_IMAGE to be yes or no, found «$MODEL_BUILD_IN_IMAGE»." "make image MODEL_BUILD_IN_IMAGE=no" ;;
esac

case "$SLIM:$TORCH:$MODEL_BUILD_IN_IMAGE" in
    no:* | yes:cpu:yes) ;;
    yes:*) fail 2 "needs TORCH=cpu and MODEL_BUILD_IN_IMAGE=yes with SLIM=yes, found «$TORCH» and «$MODEL_BUILD_IN_IMAGE»." "make image SLIM=yes" ;;
    *) fail 2 "needs SLIM to be yes or no, found «$SLIM»." "make image SLIM=yes" ;;
esac
case "$TORCH" in cpu | cuda) ;; *) fail 2 "needs TORCH to be cpu or cuda, found «$TORCH»." "make image TORCH=cuda" ;; esac
if [ "$TORCH" = cuda ] && ! ls build/wheels/cuda/torch-*.whl >/dev/null 2>&1; then
    fail 2 "needs torch for CUDA and the libraries it names in build/wheels/cuda, found no torch there." \
        "docs/container.md says how to collect them"
fi

shopt -s nullglob
plugin_tests=(plugins/*/tests/test_*.py)
shopt -u nullglob
if [ "$PLUGIN_TESTS" = yes ] && [ -z "$STAGE" ] && [ ${#plugin_tests[@]} -gt 0 ]; then
    say plugins "their tests (log: build/plugin-tests.log)"
    mkdir -p build
    requirements/install.sh dev >&2
    if ! ENV=test .venv/bin/python -m app.cli plugin test >build/plugin-tests.log 2>&1; then
        tail -n 20 build/plugin-tests.log | sed 's/^/    /' >&2
        fail 1 "needs the tests of every plugin to pass, found one that failed (above). Nothing was built or touched." \
            "mend it: make plugin-test NAME=…; or leave them out: PLUGIN_TESTS=no"
    fi
fi

# --- from here on, something changes ----------------------------------------------------------------------------------

docker/steps/wheels.sh "$wheels"

version="$(sed -n 's/^__version__ = "\(.*\)"/\1/p' app/__init__.py)"
revision="$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"
if [ "$revision" != unknown ] && [ -n "$(git status --porcelain -- apache app cask docker env flask.wsgi models plugins requirements)" ]; then
    revision="$revision-changed"
fi
# The commit's moment, not now: the same source gives the same image.
created="$(git log -1 --format=%cI 2>/dev/null || true)"

log="build/image.log"
result=(--tag "$IMAGE" --tag "${IMAGE%:*}:$version")
[ -z "$STAGE" ] || result=(--target "$STAGE" --output type=cacheonly)
say image "$IMAGE, version $version, revision $revision (log: $log)"
DOCKER_BUILDKIT=1 "$DOCKER" build \
    --build-arg "BASE_IMAGE=$BASE_IMAGE" \
    --build-arg "TORCH=$TORCH" \
    --build-arg "MODEL_BUILD_IN_IMAGE=$MODEL_BUILD_IN_IMAGE" \
    --build-arg "SLIM=$SLIM" \
    --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" \
    --build-arg "CREATED=${created:-unknown}" \
    --file docker/Dockerfile \
    --network "$NETWORK" \
    --progress plain \
    "${result[@]}" \
    . >"$log" 2>&1 &
pid=$!
shown=""
while kill -0 "$pid" 2>/dev/null; do
    # BuildKit's plain progress names a step as «#7 [stage 2/3] RUN …».
    now="$(sed -n 's/^#[0-9]* \[\([a-z-]*\) *[0-9/]*\] .*/\1/p' "$log" | grep -v internal | tail -n 1 || true)"
    if [ -n "$now" ] && [ "$now" != "$shown" ]; then
        shown="$now"
        say "$((SECONDS - began)) s" "$now"
    fi
    sleep 0.3
done
wait "$pid" || {
    # The words of the step that failed: they stand above BuildKit's «ERROR:», which repeats the whole command.
    sed -e '/^#[0-9]* ERROR/,$d' -e 's/^#[0-9]* [0-9.]* //' "$log" | grep -v '^$' | tail -n 30 | sed 's/^/    /' >&2
    fail 1 "needs every step of docker/Dockerfile to succeed, found one that did not (above: the end of $log)." \
        "mend what it names, then: make image"
}

if [ -n "$STAGE" ]; then
    say kept "stage $STAGE, in $((SECONDS - began)) s"
    exit 0
fi
tagged="$(revision_tag "$IMAGE")"
prune_images
# What this build replaced, and nothing else: images of ours that no name and no container holds.
"$DOCKER" image prune --force --filter label=org.opencontainers.image.title=cask >/dev/null

say built "$IMAGE, also $tagged, in $((SECONDS - began)) s: $("$DOCKER" image inspect -f '{{.Size}}' "$IMAGE" | awk '{printf "%.0f MB", $1 / 1e6}'), of which"
"$DOCKER" history --no-trunc --format '{{.Size}}\t{{.CreatedBy}}' "$IMAGE" |
    awk -F '\t' '$1 == "0B" {next}
        {what = "base"}
        /COPY .*\.venv/ {what = "Python packages: '"$([ "$SLIM" = yes ] || echo 'torch, torchvision, ')"'OpenVINO, Flask, mod_wsgi"}
        /COPY .*models/ {what = "models"}
        /COPY .* \. / {what = "code, templates, settings"}
        /COPY .*built/ {what = "models as OpenVINO computes them"}
        /build-info/ {what = "build information"}
        /apt-get/ {what = "Apache, Python, OpenSSL"}
        /smoke-in-build/ {what = "smoke test"}
        {printf "    %8s  %s\n", $1, what}'
echo "Next: make up ENV=prod"
