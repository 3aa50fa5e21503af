"""A running service is known by its program."""

from __future__ import annotations

import pytest

from app.host import running


@pytest.mark.parametrize(
    ("command", "is_server"),
    [
        (b"/usr/sbin/apache2\0-f\0/var/lib/cask/run/httpd/httpd.conf\0", True),
        (b"apache2 (mod_wsgi-express)\0-f\0/var/lib/cask/run/httpd/httpd.conf\0", True),
        (b"httpd\0-f\0/var/lib/cask/run/httpd/httpd.conf\0", True),
        (b"(wsgi:web)                \0-f\0/var/lib/cask/run/httpd/httpd.conf\0", False),
        (b"/bin/cat\0/usr/sbin/apache2\0", False),
        (b"/opt/apache2/bin/other\0", False),
        (b"", False),
    ],
)
def test_first_process_of_apache_is_known(command: bytes, is_server: bool) -> None:
    assert running.is_server(command) is is_server
