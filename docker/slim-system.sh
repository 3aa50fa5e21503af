#!/bin/sh
# Take out of Debian what serving never reads: Perl, ICU for two modules of Apache that are not loaded, character sets, tools that
# install. dpkg's list of packages stays, for those who look for known faults. Called by docker/Dockerfile for a slim image.
set -eu

libraries="$(dirname /usr/lib/*/libpython3.11.so.1.0)"
rm -rf /usr/share/perl* "$libraries"/perl* /usr/bin/perl* "$libraries"/libperl* \
    "$libraries"/libicu* "$libraries"/libxml2* /usr/lib/apache2/modules/mod_proxy_html.so /usr/lib/apache2/modules/mod_xml2enc.so \
    "$libraries"/gconv "$libraries"/libgnutls* "$libraries"/libapt-* /usr/lib/apt /usr/bin/apt* /var/lib/apt /var/cache/* \
    /usr/share/apache2/icons /usr/share/bash-completion /usr/share/bug /usr/share/lintian \
    /usr/lib/python3.11/ensurepip /usr/lib/python3.11/idlelib /usr/lib/python3.11/lib2to3 /usr/lib/python3.11/pydoc_data \
    /usr/lib/python3.11/test /usr/lib/python3.11/turtledemo
mkdir -p /var/cache
# What is left finds its libraries.
for file in /usr/sbin/apache2 /usr/bin/python3.11 /usr/bin/openssl /usr/bin/bash /usr/bin/tar; do
    [ -e "$file" ] || continue
    if ldd "$file" | grep 'not found'; then echo "FAIL: $file needs a library that was taken away." >&2; exit 1; fi
done
