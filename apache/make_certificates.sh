#!/usr/bin/env bash
# Make an authority of this machine's own and a certificate for HTTPS, for dev and closed networks: `make certs`.
#
#   apache/make_certificates.sh [NAME | ADDRESS]…     besides localhost, SERVER_NAME and this machine's name
#   CERTS_DIR=folder …                                secrets/tls unless given
#   SERVICE_USER=www-data …                           who serves, where root starts the service
#
# What is there, right and valid for another month stays. Files that this program did not make are never written over.
set -eu

cd "$(dirname "$0")/.."
DIR=${CERTS_DIR:-secrets/tls}
MONTH_SECONDS=2592000
authority=$DIR/authority.pem authority_key=$DIR/authority.key certificate=$DIR/certificate.pem key=$DIR/key.pem

say() { printf '  %-12s %s\n' "$1" "$2"; }
fail() { printf 'FAIL: %s\nNext: %s\n' "$1" "$2" >&2; exit 2; }
command -v openssl >/dev/null || fail "needs openssl, found none." "apt-get install openssl"

names=()
add() { # add NAME : as subjectAltName writes it, once
    local name=$1 entry
    case "$name" in
        '' | *[!A-Za-z0-9.:*-]*) fail "«$name» is neither a host name nor an address." "make certs NAMES=\"box.example 10.0.0.7\"" ;;
        *:*) entry=IP:$name ;;
        *[!0-9.]*) entry=DNS:$name ;;
        *) entry=IP:$name ;;
    esac
    case " ${names[*]-} " in *" $entry "*) ;; *) names+=("$entry") ;; esac
}
for each in localhost 127.0.0.1 ::1 "$(hostname | tr -cd 'A-Za-z0-9.-')" ${SERVER_NAME:+"$SERVER_NAME"} "$@"; do add "$each"; done

umask 077
mkdir -p "$DIR"
work=$(mktemp -d "$DIR/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# ── The authority ────────────────────────────────────────────────────────────────────────────────────────────────────
if [ -e "$authority" ] || [ -e "$authority_key" ]; then
    [ -s "$authority" ] && [ -s "$authority_key" ] && openssl x509 -in "$authority" -noout -subject | grep -q 'Cask of' ||
        fail "$authority and $authority_key are not both there, or not of this program." "move them away, or: make certs CERTS_DIR=another-folder"
    say authority "$authority is there"
else
    new_key "$work/key"
    openssl req -x509 -new -key "$work/key" -sha256 -days 3650 -subj "/CN=Cask of $(hostname | cut -c 1-40)" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -out "$work/pem"
    mv "$work/key" "$authority_key"
    chmod 0644 "$work/pem"
    mv "$work/pem" "$authority"
    say authority "made $authority, for ten years. Whoever has $authority_key can forge any name for those who trust it: keep it here"
fi

# ── The certificate ──────────────────────────────────────────────────────────────────────────────────────────────────
is_ours() { openssl verify -CAfile "$authority" "$certificate" >/dev/null 2>&1 || openssl verify -no_check_time -CAfile "$authority" "$certificate" >/dev/null 2>&1; }
has_all_names() {
    local entry kind
    for entry in "${names[@]}"; do
        kind=-checkhost
        case "$entry" in IP:*) kind=-checkip ;; esac
        openssl x509 -in "$certificate" -noout "$kind" "${entry#*:}" | grep -q 'does match' || return 1
    done
}
is_pair() { [ "$(openssl x509 -in "$certificate" -noout -pubkey)" = "$(openssl pkey -in "$key" -pubout 2>/dev/null)" ]; }

if { [ -e "$certificate" ] || [ -e "$key" ]; } && ! is_ours; then
    fail "$certificate or $key was not made by $authority." "move both away, or: make certs CERTS_DIR=another-folder"
elif [ -e "$certificate" ] && has_all_names && is_pair && openssl x509 -in "$certificate" -noout -checkend "$MONTH_SECONDS" >/dev/null; then
    say certificate "$certificate is there, for ${names[*]}"
else
    new_key "$work/key"
    openssl req -new -key "$work/key" -subj "/CN=localhost" -out "$work/request"
    printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n' \
        "$(IFS=,; echo "${names[*]}")" >"$work/extensions"
    openssl x509 -req -in "$work/request" -CA "$authority" -CAkey "$authority_key" -set_serial "0x$(openssl rand -hex 16 | sed 's/^./1/')" \
        -sha256 -days 365 -extfile "$work/extensions" -out "$work/pem" 2>/dev/null
    chmod 0644 "$work/pem"
    if [ -n "${SERVICE_USER:-}" ]; then chown "$SERVICE_USER" "$work/key"; fi
    mv "$work/key" "$key"
    mv "$work/pem" "$certificate"
    say certificate "made $certificate, for a year, for ${names[*]}"
fi
# The service must come to the key; the key itself is for its owner alone.
if [ -n "${SERVICE_USER:-}" ]; then chown "$SERVICE_USER" "$key"; chmod a+x "$DIR" "$(dirname "$DIR")"; fi

cat <<END
Put these lines into env/local.env; a service that has them takes a new certificate by itself:
    HTTPS_PORT=8443
    TLS_CERTIFICATE=$(realpath "$certificate")
    TLS_KEY=$(realpath "$key")
Who calls trusts $authority, which is no secret:
    curl --cacert $authority https://localhost:8443/livez
    Debian, Ubuntu   cp $authority /usr/local/share/ca-certificates/cask.crt && update-ca-certificates
    Python           REQUESTS_CA_BUNDLE, SSL_CERT_FILE
    browsers         settings, certificates, authorities, import
END
