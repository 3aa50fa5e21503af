"""Secrets are taken out of text, also in the forms and codings that other products' support bundles let through."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest

from app.cli.support.redaction import Redactor

SECRET = "Zx9!k/2 w+Qm"  # noqa: S105 - made up
# Each of these stood in a bundle or report of another product; the numbers are of their trackers.
LINES = {
    "a dict that Python printed (sosreport 3713)": "identity: {{'password': '{0}', 'region': 'one'}}",
    "a shared secret (sosreport 3713)": "'ovn_metadata_proxy_shared_secret': '{0}'",
    "a URL given as an option (sosreport 3462)": "cmdline: report --upload-url https://user:{0}@example.org/x",
    "an option": "worker --upload-pass={0} --batch",
    "a password with blanks (sosreport 3266)": "ldap_default_authtok = {0}",
    "a property (sosreport 588)": "vars.password = {0}",
    "JSON in a file of settings (sosreport 2564)": '"proxy_password": "{0}",',
    "JSON within JSON (troubleshoot, CARTO 927)": '{{"message": "{{\\"apiKey\\":\\"{0}\\"}}"}}',
    "an environment (ODS 2106)": "DASHBOARD_API_KEY={0}",
    "a URI (troubleshoot 1713)": "uri: postgresql://user:{0}@hostname:5432/db?sslmode=require",
    "a comment": "# old password is {0}",
    "a setting that was commented out": "#SECRET_KEY={0}",
    "a header": "Authorization: Bearer {0}",
    "a header as JSON": '"authorization": "Token {0}"',
    "a cookie": "Cookie: session={0}; lang=de",
    "a query": "GET /jobs?api_token={0}&page=2 HTTP/1.1",
    "an argument of curl (sosreport 3880)": "curl --silent -u admin:{0} https://example.org/",
    "an option of curl (sosreport 3880)": "curl --proxy-user=admin:{0} https://example.org/",
    "a proxy without a scheme (sosreport 3789)": "https_proxy=me:{0}@proxy:3128",
    "an argument of sshpass": "10 sshpass -p {0} ssh host",
    "an argument of a database's client": "mysqldump -uroot -p{0} names",
    "an argument of openssl": "openssl rsa -passin pass:{0}",
    "a block of YAML": "password: |\n  {0}",
    "a header of digests": 'Authorization: Digest username="me", response="{0}"',
    "the address of a hook": "https://hooks.slack.com/services/T00/B00/{0}",
    "a mount": "//nas/share /mnt cifs rw,username=me,password={0},vers=3 0 0",
}


@pytest.mark.parametrize("line", LINES.values(), ids=list(LINES))
@pytest.mark.parametrize("secret", ["SV9LMoHU4XDq", "50-Leagues", "hunter2"])
def test_a_secret_that_nobody_named_is_taken_out_by_its_form(line: str, secret: str) -> None:
    text = f"before\n{line.format(secret)}\nafter\n"

    clean = Redactor().clean(text)

    assert secret not in clean
    assert clean.startswith("before\n") and clean.endswith("\nafter\n")


@pytest.mark.parametrize("word", ["x" * 100_000, "a-" * 50_000, "QUJD" * 25_000], ids=["letters", "names", "base64"])
def test_a_long_word_costs_no_minutes(word: str) -> None:
    began = time.process_time()

    Redactor().clean(f"before {word} after\n")

    # 0.1 s; what tries each letter of it takes minutes.
    assert time.process_time() - began < 10


def test_a_password_with_blanks_is_taken_out_to_the_end_of_its_line() -> None:
    clean = Redactor().clean("ldap_default_authtok = 50 Leagues Under the Sea\nnext = 1\n")

    assert clean == "ldap_default_authtok = [value]\nnext = 1\n"


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        json.dumps(SECRET),
        quote(SECRET, safe=""),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        base64.b64encode(f"me:{SECRET} and more".encode()).decode(),
        base64.urlsafe_b64encode(f"a{SECRET}".encode()).decode(),
    ],
)
def test_a_known_secret_is_taken_out_in_each_coding(spelling: str) -> None:
    redactor = Redactor([("SECRET_KEY", SECRET)])

    clean = redactor.clean(f"seen {spelling} here")

    assert "[SECRET_KEY]" in clean
    assert spelling.strip('"') not in clean
    assert redactor.is_clean(clean)
    assert redactor.counts["SECRET_KEY"] == 1


def test_the_parts_of_a_known_url_are_taken_out_by_themselves() -> None:
    redactor = Redactor(
        [("REDIS_URL", "redis://:pw%40rd5@store:6379/0"), ("HOOK", "https://h.example/services/T0/B1aaaa")]
    )

    assert (
        redactor.clean("AUTH failed with pw@rd5; posted to B1aaaa") == "AUTH failed with [REDIS_URL]; posted to [HOOK]"
    )


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA0123\nAB==\n-----END RSA PRIVATE KEY-----\nafter",
        "-----BEGIN PRIVATE KEY-----\\nMIIEowIBAAKCAQEA0123\\nAB==\\n-----END PRIVATE KEY-----\nafter",
        "-----BEGIN EC PRIVATE KEY-----\nMIIEowIBAAKCAQEA0123\nAB==\n-- cut\nafter",
    ],
)
def test_private_keys_are_taken_out_also_where_they_are_cut(text: str) -> None:
    clean = Redactor().clean(text)

    assert "MII" not in clean and "AB==" not in clean
    assert clean.endswith("after")


@pytest.mark.parametrize(
    "text",
    [
        "SECRET_KEY: 64 characters, from secrets/secret_key",
        "SECRET_KEY: not set, and dev needs none",
        "RATE_LIMIT_PER_TOKEN=\nRATE_LIMIT_PER_ADDRESS=\n",
        "2026-11-30 ERROR web the previous web process crashed: Segmentation fault",
        'cask_refused_total{code="token_missing",by="app"} 3.0',
        "05:21:10 ACCESS  httpd  200 GET /status 2174us 3380b 127.0.0.1  [aw0HxsUzmBUnPojIonkanQAAAB0]",
        "sha256:d33788fdca4f16253382ad7244afa5f9cc4ae279310cae2b8beabc95ba84adc4",
        "/var/lib/cask/run/httpd/httpd.conf",
    ],
)
def test_what_helps_to_find_a_fault_stays(text: str) -> None:
    assert Redactor([("SECRET_KEY", SECRET)]).clean(text) == text
