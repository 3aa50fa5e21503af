#!/usr/bin/env bash
# All tests, or some: tests/run.sh [unit,contract,vision,apache,loadtest,faults,attacks,browser,system]
# tests/clients is none of «all», because it wants programs from two registries: tests/run.sh clients
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=$ROOT/.venv/bin/python
# Cheap ones first, so that a plain mistake shows early.
ALL=unit,contract,vision,apache,loadtest,faults,attacks,browser,system
PARTS=${1:-$ALL}

cd "$ROOT"
FOLDERS=()
for PART in ${PARTS//,/ }; do
    [ -d "tests/$PART" ] || { echo "FAIL: no part $PART. Parts: $ALL" >&2; exit 2; }
    FOLDERS+=("tests/$PART")
done
case ",$PARTS," in *,system,*)
    if docker info >/dev/null 2>&1; then :; else
        echo "Left out: tests/system, because no container engine answers. To run them: make docker-engine base-image"
    fi ;;
esac
exec "$PYTHON" -m pytest "${FOLDERS[@]}"
