#!/usr/bin/env bash
# The tests, in three runs: the cheap ones and the dearer ones that may have neighbours, side by side, one worker a core;
# then the others, one by one.
#
#   tests/run.sh                 what is quick (`make test`)
#   tests/run.sh --long          the others (`make test-long`)
#   tests/run.sh unit,apache     all of some parts, quick and long (`make test PART=unit,apache`)
#
# The part «clients» is in neither, because it wants programs from two registries. WORKERS=4 sets how many run side by
# side; each takes about 1 GB of memory.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=$ROOT/.venv/bin/python
PARTS="unit,contract,vision,apache,browser,loadtest,faults,attacks,system,clients"
# First, so that a plain mistake shows early; and in processes that have loaded neither torch nor a browser.
CHEAP=(tests/unit tests/contract)
TOGETHER=(tests/vision tests/apache tests/browser)
# They measure times, rates or memory, stop processes, fill disks or use the container engine: a neighbour would show.
ALONE=(tests/faults tests/system)
# The same, below a part whose other files may have neighbours: here the documents' load tests.
ALONE_FILES=(tests/apache/test_documented_commands.py)
# What takes minutes: attacks, loads, proofs, faults that are waited out, and builds of whole models, which choose by speed.
# One by one. Whatever guards a promise and takes seconds stays out of this list.
LONG=(
    tests/vision/test_build.py
    tests/apache/test_background_build.py
    tests/apache/test_built_models.py
    tests/loadtest
    tests/faults/test_cache_faults.py
    tests/faults/test_encrypted_redis.py
    tests/faults/test_full_disk.py
    tests/faults/test_hangs.py
    tests/faults/test_job_faults.py
    tests/faults/test_reloading.py
    tests/faults/test_shared_job_faults.py
    tests/faults/test_version_faults.py
    tests/attacks
    tests/system/test_built_models.py
    tests/system/test_loadtest.py
    tests/system/test_monitoring.py
    tests/system/test_releases.py
)

holds() { # holds WORD WORDS… : whether the first is one of the others
    local each
    for each in "${@:2}"; do [ "$each" != "$1" ] || return 0; done
    return 1
}

together() { # together PATH… : side by side; a file is one worker's, with the servers that its tests share
    # A library that takes all cores would only wait for its neighbours.
    OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses "${WORKERS:-$(nproc)}" --dist loadfile "$@" "${LEFT_OUT[@]}"
}

cd "$ROOT"
LEFT_OUT=() WANTED_CHEAP=() WANTED_TOGETHER=() WANTED_ALONE=()
case "${1:-}" in
    "")
        LEFT_OUT=("${LONG[@]/#/--deselect=}")
        WANTED_CHEAP=("${CHEAP[@]}") WANTED_TOGETHER=("${TOGETHER[@]}") WANTED_ALONE=("${ALONE[@]}")
        ;;
    --long) WANTED_ALONE=("${LONG[@]}") ;;
    *)
        for PART in ${1//,/ }; do
            holds "$PART" ${PARTS//,/ } || { echo "FAIL: no part $PART. Parts: $PARTS" >&2; exit 2; }
            if holds "tests/$PART" "${CHEAP[@]}"; then WANTED_CHEAP+=("tests/$PART")
            elif holds "tests/$PART" "${TOGETHER[@]}"; then WANTED_TOGETHER+=("tests/$PART")
            else WANTED_ALONE+=("tests/$PART"); fi
        done
        ;;
esac
LATER=()
for FILE in "${ALONE_FILES[@]}"; do
    if holds "${FILE%/*}" "${WANTED_TOGETHER[@]}"; then LATER+=("--deselect=$FILE") WANTED_ALONE+=("$FILE"); fi
done
case " ${WANTED_ALONE[*]}" in *" tests/system"*)
    if docker info >/dev/null 2>&1; then :; else
        echo "Left out: tests/system, because no container engine answers. To run them: make docker-engine base-image"
    fi ;;
esac

STATUS=0
[ "${#WANTED_CHEAP[@]}" = 0 ] || together "${WANTED_CHEAP[@]}" || STATUS=$?
[ "${#WANTED_TOGETHER[@]}" = 0 ] || together "${WANTED_TOGETHER[@]}" "${LATER[@]}" || STATUS=$?
[ "${#WANTED_ALONE[@]}" = 0 ] || "$PYTHON" -m pytest "${WANTED_ALONE[@]}" "${LEFT_OUT[@]}" || STATUS=$?
exit "$STATUS"
