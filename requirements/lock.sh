#!/usr/bin/env bash
# Lock what is installed: writes serve.txt, apache.txt, build.txt, loadtest.txt, dev.txt, quantise.txt, timm.txt, bench.txt and bundle.txt, every
# file with its hashes. torch-cpu.txt is kept by hand.
# A second run changes nothing; UPGRADE=1 takes the newest versions that the .in files allow.
set -eu

PYTHON="${PYTHON:-python3}"
UPGRADE="${UPGRADE:-}"
UV_VERSION="${UV_VERSION:-0.13.8}"
OLDEST_PYTHON=3.11

here="$(cd "$(dirname "$0")" && pwd)"
tools="$here/../build/lock-venv"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

say() { printf '  %-10s %s\n' "$1" "$2"; }

compile() { # compile NAME INPUT… : from requirements/*.in to one locked file
    local name="$1"
    shift
    # flask-openapi3-swagger and -redoc are taken for the scripts in them; the framework that they name is not imported.
    # openvino-telemetry counts uses over the internet; OpenVINO and NNCF run without it.
    # Existing pins are kept unless UPGRADE is set; one version for all Pythons, so that there is one set to test.
    "$tools/bin/uv" pip compile "$@" \
        --quiet \
        --universal \
        --fork-strategy fewest \
        --python-version "$OLDEST_PYTHON" \
        --generate-hashes \
        --no-header \
        --no-emit-index-url \
        --no-emit-find-links \
        --allow-unsafe \
        --no-emit-package openvino-telemetry \
        --no-emit-package flask-openapi3 \
        ${UPGRADE:+--upgrade} \
        --output-file "$name.txt"
}

begin() { # begin NAME : start from the pins that are in use
    if [ -f "$here/$1.txt" ]; then cp "$here/$1.txt" "$1.txt"; fi
}

header() {
    # shellcheck disable=SC2016 # the backquotes are text
    printf '# Made by requirements/lock.sh (`make lock`) from %s. Do not edit.\n' "$1"
}

if ! [ -x "$tools/bin/uv" ] || [ "$("$tools/bin/uv" --version | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    say tools "uv $UV_VERSION into build/lock-venv"
    "$PYTHON" -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "uv==$UV_VERSION" 2>/dev/null
fi

cd "$scratch"
cp "$here"/*.in "$here/torch-cpu.txt" .
for name in serve apache build loadtest dev quantise timm bench bundle; do begin "$name"; done

say lock "serve.in"
compile serve serve.in
say lock "torch.in, without dependencies"
compile torch torch.in --no-deps --no-annotate
say lock "apache.in"
compile apache apache.in
say lock "build.in"
compile build build.in --constraints serve.txt
say lock "loadtest.in"
compile loadtest loadtest.in --constraints serve.txt
say lock "dev.in"
# One environment holds both: the same versions.
# axe-playwright-python is taken for the script in it, which Selenium injects; Playwright and its browsers are not used.
compile dev dev.in --constraints serve.txt --constraints loadtest.txt \
    --no-emit-package playwright \
    --no-emit-package pyee
say lock "quantise.in"
# It is installed beside serve.txt.
compile quantise quantise.in --constraints serve.txt --constraints dev.txt \
    --no-emit-package networkx \
    --no-emit-package numpy \
    --no-emit-package safetensors
say lock "timm.in, without dependencies"
compile timm timm.in --no-deps --no-annotate
say lock "bench.in"
# Each peer runs with the libraries that we run with, but for OpenTelemetry's, of which BentoML takes one version only.
grep -E '^[a-z0-9-]+==' serve.txt | grep -v '^opentelemetry' | sed 's/ \\$//' >shared.txt
compile bench bench.in --constraints shared.txt
say lock "bundle.in"
compile bundle bundle.in

# The CPU builds of torch lie outside the index; serve.txt accepts their hashes too.
awk 'NR == FNR { if (match($0, /sha256:[0-9a-f]+/)) more = more "    --hash=" substr($0, RSTART, RLENGTH) " \\\n"; next }
     { print }
     /^torch==/ { printf "%s", more; done = 1 }
     END { exit !done }' \
    torch-cpu.txt torch.txt >torch-all.txt ||
    { echo "FAIL: needs a line 'torch==' in the lock of torch.in, found none." >&2; exit 1; }

{ header "serve.in, torch.in and torch-cpu.txt"; cat serve.txt torch-all.txt; } >serve.new
for name in apache build loadtest dev quantise timm bench bundle; do { header "$name.in"; cat "$name.txt"; } >"$name.new"; done

if grep -nE 'https?://|file:|^-|/(home|root|opt|tmp)/' ./*.new; then
    echo "FAIL: needs locks without hosts and paths of one machine, found the lines above." >&2
    exit 1
fi

for name in serve apache build loadtest dev quantise timm bench bundle; do
    if cmp -s "$name.new" "$here/$name.txt"; then
        say same "$name.txt"
    else
        cp "$name.new" "$here/$name.txt"
        say written "$name.txt ($(grep -c '^[a-z].*==' "$name.txt") packages)"
    fi
done
echo "Next: make test"
