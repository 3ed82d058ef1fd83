"""URLs that users may give."""

from __future__ import annotations

import pytest

from ucloud.errors import InvalidInput
from ucloud.storage.download import parse_url


@pytest.mark.parametrize("url", ["http://example.org", "https://example.org:8443/a?b=c", "https://[2606:4700::1]/x"])
def test_plain_urls_are_parsed(url: str) -> None:
    assert parse_url(url).hostname


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "gopher://example.org",
        "http://",
        "http:///path",
        "http://user:secret@example.org/",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://example.org:x/",
        "http://exa mple.org/",
        "http://example.org/\r\nHost: other",
        "http://[::1",
        "http://example.org/" + "a" * 3000,
        "http://exämple.org/",
    ],
)
def test_others_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_url(url)
    assert caught.value.code == "bad_url"
