"""A store from the settings: the only place that turns file names into certificates and a password."""

from __future__ import annotations

from ucloud.config import StoreSection
from ucloud.store.etcd import Credentials, EtcdStore, Tls


def open_store(settings: StoreSection) -> EtcdStore:
    """Nothing is asked of etcd yet. Raises InvalidInput if a file is missing."""
    credentials = None
    if settings.user:
        credentials = Credentials(settings.user, settings.password_file.read_text().strip())
    tls = Tls(settings.ca_file, settings.cert_file, settings.key_file)
    return EtcdStore(settings.endpoints, tls=tls, credentials=credentials, timeout_s=settings.timeout_s)
