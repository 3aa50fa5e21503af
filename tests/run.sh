#!/usr/bin/env bash
# The tests, in two runs: what may have neighbours runs side by side, one worker a core; then the others, one by one.
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
# Cheap ones first, so that a plain mistake shows early.
TOGETHER=(tests/unit tests/contract tests/vision tests/apache tests/browser)
# They measure times, rates or memory, stop processes, fill disks or use the container engine: a neighbour would show.
ALONE=(tests/loadtest tests/faults tests/system)
# The same, below a part whose other files may have neighbours: here the documents' load tests.
ALONE_FILES=(tests/apache/test_documented_commands.py)
# Attacks, proofs, and builds of whole models, which choose by speed: one by one. Whatever guards a promise and takes
# seconds stays out of this list.
LONG=(
    tests/vision/test_build.py
    tests/apache/test_background_build.py
    tests/apache/test_built_models.py
    tests/loadtest/test_proofs.py
    tests/attacks
    tests/system/test_built_models.py
    tests/system/test_loadtest.py
    tests/system/test_monitoring.py
)

cd "$ROOT"
LEFT_OUT=()
case "${1:-}" in
    "") LEFT_OUT=("${LONG[@]/#/--deselect=}") ;;
    --long) TOGETHER=() ALONE=("${LONG[@]}") ;;
    *)
        NEIGHBOURS=" ${TOGETHER[*]} " TOGETHER=() ALONE=()
        for PART in ${1//,/ }; do
            case ",$PARTS," in *",$PART,"*) ;; *) echo "FAIL: no part $PART. Parts: $PARTS" >&2; exit 2 ;; esac
            case "$NEIGHBOURS" in *" tests/$PART "*) TOGETHER+=("tests/$PART") ;; *) ALONE+=("tests/$PART") ;; esac
        done
        ;;
esac
LATER=()
for FILE in "${ALONE_FILES[@]}"; do
    case " ${TOGETHER[*]} " in *" ${FILE%/*} "*) LATER+=("--deselect=$FILE") ALONE+=("$FILE") ;; esac
done
case " ${ALONE[*]}" in *" tests/system"*)
    if docker info >/dev/null 2>&1; then :; else
        echo "Left out: tests/system, because no container engine answers. To run them: make docker-engine base-image"
    fi ;;
esac

STATUS=0
# A file is one worker's, with the servers that its tests share. A library that takes all cores would only wait for its
# neighbours.
[ "${#TOGETHER[@]}" = 0 ] || OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses "${WORKERS:-$(nproc)}" --dist loadfile \
    "${TOGETHER[@]}" "${LEFT_OUT[@]}" "${LATER[@]}" || STATUS=$?
[ "${#ALONE[@]}" = 0 ] || "$PYTHON" -m pytest "${ALONE[@]}" "${LEFT_OUT[@]}" || STATUS=$?
exit "$STATUS"
