"""Blobs from other hosts: their doors are asked over TLS, and both sides show a certificate of the cloud."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from ucloud.config import Config
from ucloud.errors import Unavailable

TIMEOUT_S = 30.0


def blob_opener(config: Config) -> Callable[[str], BinaryIO]:
    """A function that opens the stream of a blob's URL. Raises Unavailable for any answer but 200, or OSError."""
    context = ssl.create_default_context(cafile=str(config.store.ca_file))
    context.load_cert_chain(config.host.cert_file, config.host.key_file)

    def open_blob(url: str) -> BinaryIO:
        place = urlsplit(url)
        connection = http.client.HTTPSConnection(place.netloc, timeout=TIMEOUT_S, context=context)
        connection.request("GET", place.path, headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            connection.close()
            raise Unavailable(f"failed to fetch {url}: the host answered {response.status}")
        return cast(BinaryIO, response)

    return open_blob
