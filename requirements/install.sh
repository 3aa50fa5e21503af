#!/usr/bin/env bash
# Set this machine up: system packages, .venv from the lock files, mod_wsgi built for the Python that will run it.
#
#   requirements/install.sh          what `make serve` needs
#   requirements/install.sh loadtest what `make loadtest` needs; neither torch nor Apache
#   requirements/install.sh dev      all of it, and what tests and checks need
#
# Runs as often as you like; when nothing changed it ends at once. Without a network it takes the wheels in WHEELS_DIR.
set -eu

PYTHON="${PYTHON:-}"                        # a Python >= 3.11 of your own; else the system's
VENV="${VENV:-.venv}"
WHEELS_DIR="${WHEELS_DIR:-}"                # default: build/wheels, once `make wheels` has filled it
MIN_FREE_GB="${MIN_FREE_GB:-4}"
LOG="${LOG:-build/install.log}"
OLDEST_PYTHON="3.11"

SERVE_PACKAGES=(
    apache2-bin     # the server and its modules
    apache2-dev     # apxs, to build mod_wsgi
    ca-certificates # to trust the package index
    gcc             # to build mod_wsgi
    libc6-dev       # to build mod_wsgi
    openssl         # certificates for TLS
    python3-dev     # headers and libpython, to build mod_wsgi
    python3-venv    # the virtual environment
)
LOADTEST_PACKAGES=(
    ca-certificates # to trust the package index
    python3-dev     # the same Python as serves: one .venv holds both
    python3-venv    # the virtual environment
)
DEV_PACKAGES=(
    chromium        # browser tests
    chromium-driver # browser tests
    haproxy         # balances load over two instances, in tests
    iproute2        # ss, which tests of stopping look at sockets with
    logrotate       # rotates LOG_FILE, in tests
    nginx           # a reverse proxy in front of the service, in tests
    nodejs          # the JavaScript example of docs/api.md
    prometheus      # scrapes us in a test; promtool tries the alert rules
    redis-server    # cache, limits and jobs over several machines, in tests
)

# The service user must be able to read what is installed, whatever the mask of the shell that calls us.
umask 022
mode="${1:-serve}"
cd "$(dirname "$0")/.."
root="$PWD"
. requirements/torch.sh
case "$VENV" in /*) ;; *) VENV="$root/$VENV" ;; esac
stamp="$VENV/.installed-$mode"

# --- words ------------------------------------------------------------------------------------------------------------

fail() { # fail STATUS WHAT NEXT
    printf 'FAIL: %s\nNext: %s\n' "$2" "$3" >&2
    exit "$1"
}

note() { printf '  note      %s\n' "$1"; }

step() { # step NAME COMMAND… : run it quietly, show that time passes; when it fails, the log's end and WHY and NEXT, if set
    local name="$1" began=$SECONDS pid status=0 shown=0
    shift
    printf '\n== %s: %s\n' "$name" "$*" >>"$LOG"
    printf '  %-42s ' "$name"
    "$@" >>"$LOG" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if [ $((SECONDS - began)) -ge $((shown + 10)) ]; then
            shown=$((SECONDS - began))
            printf '%s s … ' "$shown"
        fi
    done
    wait "$pid" || status=$?
    if [ "$status" -ne 0 ]; then
        printf 'failed\n\n' >&2
        tail -n 15 "$LOG" | sed 's/^/    /' >&2
        fail 1 "${WHY:-the step «$name» needs to succeed, found exit status $status (above: the end of $LOG).}" \
            "${NEXT:-mend what it names, then run the same command again; it goes on where it stopped.}"
    fi
    printf 'ok, %s s\n' "$((SECONDS - began))"
}

# --- what is there ----------------------------------------------------------------------------------------------------

locks() { # locks MODE
    case "$1" in
        serve) echo build.txt torch-cpu.txt serve.txt apache.txt ;;
        loadtest) echo build.txt loadtest.txt ;;
        dev) echo build.txt torch-cpu.txt serve.txt apache.txt loadtest.txt dev.txt ;;
    esac
}

locks_digest() { # locks_digest MODE : as docker/steps/wheels.sh computes it
    # shellcheck disable=SC2046 # a list of plain names
    (cd requirements && cat $(locks "$1")) | sha256sum | cut -c1-16
}

set_up_digest() { # set_up_digest MODE : one number for all that is locked
    # shellcheck disable=SC2046 # a list of plain names
    (cd requirements && cat $(locks "$1") environment/*.* environment/*/*.* ../app/runtimes/kernels.py ../app/runtimes/suppression.py install.sh torch.sh ../apache/modules/*) | sha256sum | cut -c1-16
}

missing_packages() { # missing_packages NAME… : those that dpkg does not know as installed
    local installed
    # shellcheck disable=SC2016 # the format is dpkg-query's
    installed=" $(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
        awk '$1 == "installed" {printf "%s ", $2}') "
    for name in "$@"; do
        case "$installed" in *" $name "*) ;; *) printf '%s ' "$name" ;; esac
    done
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

may_be_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }

# Says in one line why a Python will not do; says nothing when it will.
# NOTE: mod_wsgi runs Python as the service user. A Python below a closed home folder (pyenv of the superuser) cannot be
# read by that user, and the server would start, crash and start again for ever.
python_refusal() {
    "$1" - "$OLDEST_PYTHON" <<'PY' 2>/dev/null || echo "it does not run"
import os, sys, sysconfig
if sys.version_info < tuple(int(x) for x in sys.argv[1].split(".")):
    sys.exit(print("it is Python %d.%d, older than %s" % (*sys.version_info[:2], sys.argv[1])))
if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
    sys.exit(print("it has no shared libpython, which mod_wsgi links"))
if os.geteuid() == 0:
    for path in (os.path.realpath(sys.executable), sysconfig.get_path("stdlib")):
        while path != "/":
            if not os.stat(path).st_mode & (0o001 if os.path.isdir(path) else 0o004):
                sys.exit(print("the service user may not read " + path))
            path = os.path.dirname(path)
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit(print("its headers (Python.h) are missing"))
try:
    import ensurepip, venv
except ImportError:
    print("it has no venv module")
PY
}

choose_python() { # sets `python`
    local candidate why reasons=""
    if [ -n "$PYTHON" ]; then
        why="$(python_refusal "$PYTHON")"
        [ -z "$why" ] || fail 2 "needs a usable Python in PYTHON, found $PYTHON: $why." \
            "leave PYTHON out to take the system's, or name another one."
        python="$PYTHON"
        return
    fi
    for candidate in /usr/bin/python3 /usr/bin/python3.1[1-9] /usr/local/bin/python3 python3; do
        candidate="$(command -v "$candidate" 2>/dev/null)" || continue
        why="$(python_refusal "$candidate")"
        if [ -z "$why" ]; then
            python="$candidate"
            return
        fi
        reasons="$reasons $candidate: $why;"
    done
    fail 2 "needs a Python >= $OLDEST_PYTHON that the service user can read, found none.${reasons}" \
        "install one (Debian 12, Ubuntu 24.04 and later have it: apt-get install python3-dev python3-venv) or set PYTHON."
}

# --- preflight: touches nothing ---------------------------------------------------------------------------------------

case "$mode" in
    serve | loadtest | dev) ;;
    *) fail 2 "needs serve, loadtest or dev, found «$mode»." "requirements/install.sh serve" ;;
esac
# mod_wsgi-express writes these paths unquoted into a shell script; apache/preflight.py refuses the same.
for path in "$root" "$VENV"; do
    case "$path" in
        *[[:space:][:cntrl:]\"\'\\\$\`\;\&\|\<\>\(\)\*\?\[\]\{\}\~\#\!]*)
            fail 2 "needs a path without blanks, quotes and signs that a shell takes for its own, found «$path»." \
                "clone into another folder, such as /srv/cask" ;;
    esac
done
packages=("${SERVE_PACKAGES[@]}")
[ "$mode" != loadtest ] || packages=("${LOADTEST_PACKAGES[@]}")

digest="$(set_up_digest "$mode")"
is_done() {
    local stamped_digest stamped_python
    [ -x "$VENV/bin/python" ] && [ -r "$stamp" ] && read -r stamped_digest stamped_python <"$stamp" || return 1
    [ "$digest" = "$stamped_digest" ] && [ -x "$stamped_python" ] || return 1
    [ "$mode" = loadtest ] || [ -x /usr/sbin/apache2 ] || return 1
    [ -z "$PYTHON" ] || [ "$(readlink -f "$(command -v "$PYTHON")")" = "$stamped_python" ]
}
is_done && exit 0

echo "Set-up for $mode (log: $LOG)"
command -v apt-get >/dev/null || fail 2 "needs apt-get (Debian 12, Ubuntu 24.04 or later), found another system." \
    "install Apache httpd with its development files, gcc and a Python >= $OLDEST_PYTHON, or use a container: make up"
free_gb=$(($(df -Pk "$root" | awk 'NR == 2 {print $4}') / 1048576))
[ "$free_gb" -ge "$MIN_FREE_GB" ] || fail 2 "needs $MIN_FREE_GB GB of free disk below $root, found $free_gb GB." \
    "make room there, or clone elsewhere."
missing="$(missing_packages "${packages[@]}")"
missing="${missing% }"
if [ -n "$missing" ] && ! may_be_root; then
    fail 2 "needs the system packages «$missing», which are not installed, and may not install them." \
        "sudo apt-get install --no-install-recommends $missing"
fi
if [ "$(id -u)" -eq 0 ]; then
    for folder in "$root" "$(dirname "$root")" "$(dirname "$(dirname "$root")")"; do
        [ -n "$(find "$folder" -maxdepth 0 -perm -o=x)" ] ||
            note "$folder is closed to others; \`make serve\` as the superuser runs as another user, who must read it."
    done
fi

# --- from here on, something changes ----------------------------------------------------------------------------------

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@"
}
apt_update() { as_root apt-get update -o DPkg::Lock::Timeout=300; }

mkdir -p "$(dirname "$LOG")"
exec 9>>"$LOG.lock"
if ! flock --nonblock 9; then
    note "another set-up runs in this folder; waiting for it"
    flock 9
    is_done && exit 0
fi
: >"$LOG"
updated=""
if [ -n "$missing" ]; then
    step "package lists" apt_update
    updated=yes
    # shellcheck disable=SC2086 # a list of names
    step "system packages: $missing" apt_install $missing
fi

choose_python
python_real="$(readlink -f "$(command -v "$python")")"
tag="$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"

if [ -x "$VENV/bin/python" ] && [ "$(readlink -f "$VENV/bin/python")" != "$python_real" ]; then
    note "$VENV was made with $(readlink -f "$VENV/bin/python"), not $python_real: made anew"
    rm -rf "$VENV"
fi
[ -x "$VENV/bin/pip" ] || step "virtual environment, $("$python" -V)" "$python" -m venv "$VENV"

# `make wheels` leaves what it collected, and for which Python, in .complete-serve and .complete-dev.
offline() { # offline SET : pip's options to take SET from the folder of wheels, where that holds it
    if [ -n "$WHEELS_DIR" ]; then
        printf -- '--no-index\n--find-links\n%s\n--find-links\n%s\n' "$WHEELS_DIR" "$WHEELS_DIR/dev"
    elif [ "$(cat "build/wheels/.complete-$1" 2>/dev/null)" = "$tag $(locks_digest "$1")" ]; then
        printf -- '--no-index\n--find-links\nbuild/wheels\n--find-links\nbuild/wheels/dev\n'
    fi
}

pip_install() { # pip_install SET OPTION…
    local set_name="$1" options
    shift
    mapfile -t options < <(offline "$set_name")
    "$VENV/bin/python" -m pip --disable-pip-version-check install \
        --progress-bar off \
        --require-hashes \
        "${options[@]}" \
        "$@"
}

mod_wsgi_right() { # built for this very Python: the wanted version, our header, loads, links the interpreter's libpython
    local wanted library
    wanted="$(sed -n 's/^mod[-_]wsgi==\([^ ]*\).*/\1/p' requirements/apache.txt)"
    [ "$("$VENV/bin/python" -c 'from importlib.metadata import version as v; print(v("mod_wsgi"))' 2>/dev/null)" = "$wanted" ] || {
        echo "mod_wsgi $wanted is not installed"
        return 1
    }
    library="$("$VENV/bin/mod_wsgi-express" module-location)" || return 1
    grep -q 'cask: numeric addresses' "$library" || {
        echo "mod_wsgi was built without apache/modules/numeric_addresses.h"
        return 1
    }
    VENV_MODULE="$library" "$VENV/bin/python" - <<'PY'
import os, pathlib, re, subprocess, sys, sysconfig
module = os.environ["VENV_MODULE"]
linked = re.findall(r"(libpython\S+) => (\S+)", subprocess.run(["ldd", module], capture_output=True, text=True).stdout)
name, folder = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
expected = {str(pathlib.Path(folder, name).resolve()), str(pathlib.Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "", name).resolve())}
found = {str(pathlib.Path(path).resolve()) for _, path in linked}
if not found or not found <= expected:
    sys.exit(f"{module} needs {' or '.join(sorted(expected))}, found {linked or 'no libpython'}")
PY
}

torch_right() {
    "$VENV/bin/python" -W ignore -c 'import torch; print(torch.__version__)'
}

torch_for_cpu() {
    with_torch_index pip_install serve --no-deps && return
    # The package index's build for x86-64 needs CUDA's libraries; for other processors it needs none.
    [ "$(uname -m)" != x86_64 ] || return
    echo "no CPU build found; the package index's build follows"
}

environment() { # what Python and `flask` must know by themselves
    local copy status=0
    # A copy: building leaves files beside the source.
    copy="$(mktemp -d)"
    cp -r requirements/environment/. "$copy"
    requirements/environment/take-kernels.sh app/runtimes "$copy/cask_torchvision"
    # Its name until November 2026; two would both claim `flask routes`.
    "$VENV/bin/python" -m pip --disable-pip-version-check uninstall --yes cask-commands
    "$VENV/bin/python" -m pip --disable-pip-version-check install \
        --force-reinstall \
        --no-build-isolation \
        --no-cache-dir \
        --no-deps \
        --no-index \
        "$copy" || status=$?
    rm -r "$copy"
    return "$status"
}

set_up_service() {
    # --no-deps: serve.txt is complete, and torch's own list names CUDA (see requirements/torch.in).
    torch_is_locked "$tag" "$(uname -m)" || fail 1 "$(torch_missing "$tag" "$(uname -m)")" "$(torch_next "$tag" "$(uname -m)")"
    WHY="$(torch_missing "$tag" "$(uname -m)")" NEXT="$(torch_next "$tag" "$(uname -m)")" \
        step "torch, CPU build (1 GB installed)" torch_for_cpu
    step "what the service imports" pip_install serve --no-deps -r requirements/serve.txt
    if ! torch_right >>"$LOG" 2>&1; then
        tail -n 3 "$LOG" | sed 's/^/    /' >&2
        fail 1 "needs a torch that imports on this machine, found one that does not (often a build for CUDA)." \
            "remove $VENV, then the same command again"
    fi
    step "what Python here knows by itself" environment
    step "our module for Apache" apache/modules/build.sh "$VENV"
    mod_wsgi_right >>"$LOG" 2>&1 && return
    # --no-cache-dir: pip's cache may hold a build for another Python of the same version; --no-build-isolation: what
    # builds it is locked too.
    CFLAGS="-include '$PWD/apache/modules/numeric_addresses.h'" step "mod_wsgi, built for $("$python" -V)" pip_install serve \
        --force-reinstall \
        --no-binary mod_wsgi \
        --no-build-isolation \
        --no-cache-dir \
        --no-deps \
        -r requirements/apache.txt
    step "mod_wsgi links this Python's library" mod_wsgi_right
}

step "pip and build tools" pip_install serve -r requirements/build.txt
if [ "$mode" != loadtest ]; then set_up_service; fi
if [ "$mode" != serve ]; then
    step "what sends load" pip_install dev --no-deps -r requirements/loadtest.txt
fi
if [ "$mode" = dev ]; then
    step "what tests and checks need" pip_install dev --no-deps -r requirements/dev.txt
    missing="$(missing_packages "${DEV_PACKAGES[@]}")"
    missing="${missing% }"
    if [ -n "$missing" ] && grep -q '^ID=ubuntu' /etc/os-release; then
        note "Ubuntu has no $missing as packages; browser tests need a chromedriver of yours on PATH."
    elif [ -n "$missing" ] && ! may_be_root; then
        note "no browser tests without: sudo apt-get install $missing"
    elif [ -n "$missing" ]; then
        [ -n "$updated" ] || step "package lists" apt_update
        # shellcheck disable=SC2086 # a list of names
        step "system packages: $missing" apt_install $missing
    fi
    # What serves and what sends load are part of what tests.
    for part in serve loadtest; do
        printf '%s %s\n' "$(set_up_digest "$part")" "$python_real" >"$VENV/.installed-$part"
    done
fi

printf '%s %s\n' "$digest" "$python_real" >"$stamp"
echo "Set up. Next: make $([ "$mode" = dev ] && echo test || echo "$mode")"
