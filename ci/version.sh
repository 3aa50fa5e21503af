#!/usr/bin/env bash
# Release the version that CHANGELOG.md begins with, and begin the next one: ci/version.sh NEXT, as in 0.3.0
# app/__init__.py holds the number, and nothing else does: images, /version, bundles and the API's description take it from there.
set -eu -o pipefail
cd "${ROOT:-$(dirname "$0")/..}"

fail() { printf 'FAIL: %s\nNext: %s\n' "$1" "$2" >&2; exit 2; }
next="${1:-}"
now="$(sed -n 's/^__version__ = "\(.*\)"/\1/p' app/__init__.py)"
[[ "$next" =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "needs the next version as in 0.3.0, found «$next»." "ci/version.sh 0.3.0"
[ "$(printf '%s\n%s\n' "$now" "$next" | sort -V | tail -n 1)" = "$next" ] && [ "$next" != "$now" ] ||
    fail "needs a version after $now, found $next." "ci/version.sh with a higher one"
grep -q "^## $now, not released yet$" CHANGELOG.md || fail "needs CHANGELOG.md to begin with «## $now, not released yet», found otherwise." "put its heading right"

sed -i "s/^## $now, not released yet$/## $next, not released yet\n\n**Do this when you upgrade**\n\n- Nothing.\n\n## $now, $(date +%Y-%m-%d)/" CHANGELOG.md
sed -i "s/^__version__ = .*/__version__ = \"$next\"/" app/__init__.py
printf '  released     %s in CHANGELOG.md; the next is %s\n' "$now" "$next"
printf 'Next: git tag v%s, for the commit that was %s; there: python -m tests.record_state . tests/apache/states/%s.tar.gz\n' "$now" "$now" "$now"
printf 'Then: git add tests/apache/states, and git commit -a\n'
