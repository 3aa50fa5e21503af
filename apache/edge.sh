#!/usr/bin/env bash
# Serve as the edge: what apache/edge.py rendered, in the foreground; SIGWINCH lets requests in flight finish.
#
#   apache/edge.sh /edge/conf
set -eu

# Apache opens its output anew, by name; that of another user, such as the engine's pipe, it could not open.
exec > >(trap '' HUP INT TERM WINCH; exec cat) 2>&1
exec "$(command -v apache2 || command -v httpd)" -f "${1:?the folder}/httpd.conf" -DFOREGROUND
