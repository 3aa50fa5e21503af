#!/usr/bin/env bash
# The tests, in three runs: the cheap ones and the dearer ones that may have neighbours, each side by side; then the
# others, one by one.
#
#   tests/run.sh                 what is quick (`make test`)
#   tests/run.sh --long          the others (`make test-long`)
#   tests/run.sh unit,apache     all of some parts, quick and long (`make test PART=unit,apache`)
#   tests/run.sh --list …        print what would run, a file a line, and run nothing
#
# The part «clients» is in neither, because it wants programs from two registries. WORKERS=4 sets how many files run side
# by side; each takes about 1 GB of memory. IMAGE_AHEAD=no leaves the image's build to the tests of containers alone.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=$ROOT/.venv/bin/python
PARTS=(unit contract vision apache browser loadtest faults attacks system clients)
# First, so that a plain mistake shows early; and in processes that have loaded neither torch nor a browser.
CHEAP=(tests/unit tests/contract)
# They measure rates or memory, count what is lost, choose what is fastest, or yield to every neighbour (a background
# build): a neighbour would show.
ALONE=(
    tests/apache/test_background_build.py
    tests/apache/test_built_models.py
    tests/apache/test_examples_with_requirements.py
    tests/apache/test_model_code.py
    tests/apache/test_rates.py
    tests/attacks
    tests/clients
    tests/faults/test_cache_faults.py
    tests/faults/test_hangs.py
    tests/faults/test_refusals.py
    tests/loadtest
    tests/system/test_backups.py
    tests/system/test_loadtest.py
    tests/system/test_releases.py
    tests/vision/test_build.py
)
# What takes minutes: attacks, loads, proofs, fuzzing, faults that are waited out, and builds of whole models. Whatever guards a
# promise and takes seconds stays out of this list.
LONG=(
    tests/apache/test_applications.py
    tests/apache/test_background_build.py
    tests/apache/test_backups.py
    tests/apache/test_built_models.py
    tests/apache/test_code_description.py
    tests/apache/test_code_jobs.py
    tests/apache/test_code_protocols.py
    tests/apache/test_description.py
    tests/apache/test_examples_with_requirements.py
    tests/apache/test_forms.py
    tests/apache/test_model_code.py
    tests/apache/test_networks.py
    tests/apache/test_tutorial.py
    tests/apache/test_two_instances.py
    tests/attacks
    tests/faults/test_cache_faults.py
    tests/faults/test_encrypted_redis.py
    tests/faults/test_full_disk.py
    tests/faults/test_hangs.py
    tests/faults/test_job_faults.py
    tests/faults/test_key_rotation.py
    tests/faults/test_reloading.py
    tests/faults/test_shared_job_faults.py
    tests/faults/test_version_faults.py
    tests/loadtest
    tests/system/test_backups.py
    tests/system/test_built_models.py
    tests/system/test_bundle.py
    tests/system/test_loadtest.py
    tests/system/test_monitoring.py
    tests/system/test_releases.py
    tests/unit/model_making/test_checks.py
    tests/vision/test_add_network.py
    tests/vision/test_build.py
    tests/vision/test_detection_heads.py
    tests/vision/test_network_builds.py
)
# The slowest of those that run side by side begin: a slow one that came last would run on alone.
SLOWEST=(
    tests/system/test_bundle.py
    tests/faults/test_shared_job_faults.py
    tests/browser/test_wcag.py
    tests/browser/test_jobs.py
    tests/browser/test_preferences.py
    tests/apache/test_jobs.py
    tests/apache/test_tutorial.py
    tests/apache/test_access.py
    tests/apache/test_ensemble_tls.py
    tests/faults/test_engine_faults.py
    tests/apache/test_metrics.py
    tests/apache/test_versions.py
    tests/apache/test_telling.py
    tests/apache/test_ipv6.py
    tests/apache/test_environments.py
    tests/apache/test_behind_proxies.py
    tests/apache/test_plugins.py
    tests/vision/test_checkpoints.py
    tests/vision/test_architectures.py
    tests/vision/test_right_answers.py
    tests/unit/decoding/test_children.py
    tests/unit/model_code/test_worker.py
    tests/unit/test_makefile.py
    tests/unit/test_loadtest_compare.py
    tests/unit/cli/test_commands.py
    tests/system/test_container.py
    tests/system/test_stopping.py
)

is_below() { # is_below FILE PATH… : whether the file is one of the paths, or in one of them
    local each
    for each in "${@:2}"; do case "$1" in "$each" | "$each"/*) return 0 ;; esac; done
    return 1
}

side_by_side() { # side_by_side WORKERS FILE… : a file is one worker's, with the servers that its tests share
    # A library that takes all cores would only wait for its neighbours.
    OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses "${WORKERS:-$1}" --dist loadfile --no-loadscope-reorder "${@:2}"
}

cd "$ROOT"
for FILE in "${ALONE[@]}" "${LONG[@]}" "${SLOWEST[@]}"; do
    [ -e "$FILE" ] || { echo "FAIL: tests/run.sh names $FILE, found nothing. Put the name right there." >&2; exit 2; }
done
IS_LIST=no
if [ "${1:-}" = --list ]; then IS_LIST=yes; shift; fi
WANTED=("${PARTS[@]/#/tests/}") IS_LONG=
case "${1:-}" in
    "") IS_LONG=no ;;
    --long) IS_LONG=yes ;;
    *)
        WANTED=()
        for PART in ${1//,/ }; do
            is_below "$PART" "${PARTS[@]}" || { echo "FAIL: no part $PART. Parts: ${PARTS[*]}" >&2; exit 2; }
            WANTED+=("tests/$PART")
        done
        ;;
esac

RUN_CHEAP=() RUN_TOGETHER=() RUN_ALONE=()
sort_in() { # sort_in FILE : into one of the three runs
    # One long file alone would hold up the others.
    if [ "$IS_LONG" != yes ] && is_below "$1" "${CHEAP[@]}"; then RUN_CHEAP+=("$1")
    elif is_below "$1" "${ALONE[@]}"; then RUN_ALONE+=("$1")
    else RUN_TOGETHER+=("$1"); fi
}
for FILE in "${SLOWEST[@]}" $(find "${WANTED[@]}" -name "test_*.py" | sort); do
    is_below "$FILE" "${WANTED[@]}" && ! is_below "$FILE" "${RUN_CHEAP[@]}" "${RUN_TOGETHER[@]}" || continue
    if [ -n "$IS_LONG" ]; then
        if is_below "$FILE" "${LONG[@]}"; then [ "$IS_LONG" = yes ] || continue; else [ "$IS_LONG" = no ] || continue; fi
        ! is_below "$FILE" tests/clients || continue
    fi
    sort_in "$FILE"
done
if [ "$IS_LIST" = yes ]; then
    for FILE in "${RUN_CHEAP[@]}"; do echo "cheap     $FILE"; done
    for FILE in "${RUN_TOGETHER[@]}"; do echo "together  $FILE"; done
    for FILE in "${RUN_ALONE[@]}"; do echo "alone     $FILE"; done
    exit
fi
# Fetching and installing what the image holds mostly waits, so it begins beside the other tests. tests/system builds the
# image whatever came of it: it waits for the lock, then finds these stages in the engine's cache, or makes them and says
# what is wrong.
AHEAD='' AHEAD_LOG=build/image-ahead.log AHEAD_SECONDS=900
build_ahead() {
    mkdir -p build
    # shellcheck disable=SC2016 # of the shell inside
    timeout "$AHEAD_SECONDS" flock build/image.lock bash -c 'for STAGE in model-tools dependencies; do STAGE=$STAGE docker/steps/build.sh || exit; done' \
        >"$AHEAD_LOG" 2>&1 </dev/null &
    AHEAD=$!
    trap 'kill "$AHEAD" 2>/dev/null || true' EXIT
}
case " ${RUN_TOGETHER[*]}" in *" tests/system"*)
    if ! docker info >/dev/null 2>&1; then
        echo "Left out: tests/system, because no container engine answers. To run them: make docker-engine base-image"
    elif [ "${IMAGE_AHEAD:-yes}" = yes ] && [ "${#RUN_CHEAP[@]}" != 0 ]; then build_ahead; fi ;;
esac

STATUS=0
# More files than cores: they wait for disks and for other processes a third of the time.
[ "${#RUN_CHEAP[@]}" = 0 ] || side_by_side "$(($(nproc) * 2))" "${RUN_CHEAP[@]}" || STATUS=$?
# They wait about half of the time: for a server or a container to start, for a browser, for a period to end.
[ "${#RUN_TOGETHER[@]}" = 0 ] || side_by_side "$(($(nproc) * 2 + 1))" "${RUN_TOGETHER[@]}" || STATUS=$?
if [ -n "$AHEAD" ]; then
    wait "$AHEAD" || echo "The image's build could not begin ahead ($AHEAD_LOG); tests/system tries again."
    trap - EXIT
fi
[ "${#RUN_ALONE[@]}" = 0 ] || "$PYTHON" -m pytest "${RUN_ALONE[@]}" || STATUS=$?
exit "$STATUS"
