#!/usr/bin/env bash
# Run a program with what was given to make. Every value is one argument, and no shell reads it.
#
#   app/given.sh PROGRAM [ARGUMENT | --option:NAME | --switch?NAME | :NAME | :NAME=default | @NAME]…
#
# --option:NAME becomes --option=<value>, :NAME the value alone, @NAME the words of the value (quotes hold words
# together, nothing else is special); each is left out where nothing was given. --switch?NAME becomes --switch where
# the value is yes, and is left out for no. The Makefile exports NAME as GIVEN_NAME.
set -eu

command=()
for each in "$@"; do
    case "$each" in
        --*:*)
            name="GIVEN_${each#*:}"
            [ -z "${!name:-}" ] || command+=("${each%%:*}=${!name}")
            ;;
        --*\?*)
            name="GIVEN_${each#*\?}"
            case "${!name:-no}" in
                yes) command+=("${each%%\?*}") ;;
                no) ;;
                *)
                    echo "FAIL: ${each#*\?}=${!name} is neither yes nor no." >&2
                    exit 2
                    ;;
            esac
            ;;
        :*)
            given="${each#:}"
            name="GIVEN_${given%%=*}"
            default="${given#"${given%%=*}"}"
            value="${!name:-${default#=}}"
            [ -z "$value" ] || command+=("$value")
            ;;
        @*)
            name="GIVEN_${each#@}"
            # As xargs reads words: blanks, quotes and backslashes.
            words=$(printf '%s' "${!name:-}" | xargs -r printf '%q ') || {
                echo "FAIL: ${each#@}=${!name} has a quote that is not closed." >&2
                exit 2
            }
            # printf has quoted each word.
            eval "command+=($words)"
            ;;
        *) command+=("$each") ;;
    esac
done
exec "${command[@]}"
