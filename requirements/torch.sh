# shellcheck shell=bash
# Where torch's CPU build comes from. Sourced by install.sh and docker/steps/wheels.sh, from the project's root.

TORCH_LOCK=requirements/torch-cpu.txt
TORCH_INDEX_URL="${TORCH_INDEX_URL:-$(sed -n 's/^# index: //p' "$TORCH_LOCK")}"

torch_is_locked() { # torch_is_locked TAG ARCHITECTURE : whether the lock has a hash of this Python's build, as cp312 x86_64
    case " $(sed -n 's/^# has: //p' "$TORCH_LOCK") " in *" $1-$2 "*) ;; *) return 1 ;; esac
}

with_torch_index() { # with_torch_index COMMAND… : from where pip looks by itself; else from PyTorch's index too
    "$@" -r "$TORCH_LOCK" || "$@" --extra-index-url "$TORCH_INDEX_URL" -r "$TORCH_LOCK"
}

torch_missing() { # torch_missing TAG ARCHITECTURE : why it was not found, in one line
    if torch_is_locked "$1" "$2"; then
        echo "needs torch's CPU build for $1 on $2, found none where pip looks, nor at $TORCH_INDEX_URL."
    else
        echo "needs the hash of torch's CPU build for $1 on $2, found those of: $(sed -n 's/^# has: //p' "$TORCH_LOCK")."
    fi
}

torch_next() { # torch_next TAG ARCHITECTURE : what to do about it, in one line
    if torch_is_locked "$1" "$2"; then
        echo "reach that index, name a mirror of it in TORCH_INDEX_URL, or put the wheel into a folder and name that in PIP_FIND_LINKS; then the same command again"
    else
        echo "use one of those Pythons (PYTHON=/usr/bin/python3.12 make serve), or add the hash to $TORCH_LOCK and run make lock"
    fi
}
