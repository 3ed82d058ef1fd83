"""The wanted documents of all hosts as a pure function of the view."""

from __future__ import annotations

from collections.abc import Mapping

from ucloud.compose.network_documents import network_documents
from ucloud.compose.vm_documents import vm_documents
from ucloud.config import SchedulerSection
from ucloud.model.wanted import WantedBlob, WantedNetwork, WantedVm
from ucloud.store import keys
from ucloud.store.view import View

Document = WantedVm | WantedNetwork | WantedBlob
DEFAULTS = SchedulerSection()


def compose_documents(
    view: View, settings: SchedulerSection = DEFAULTS, *, must_stop: frozenset[str] = frozenset()
) -> Mapping[str, Document]:
    """Every document that should be in the store now, by its key.

    ``must_stop`` are VMs that are not to run as long as their host is emptied, whatever their specs say.
    """
    documents: dict[str, Document] = {}
    vms = vm_documents(view, settings, must_stop)
    for (host_id, vm_id), document in vms.items():
        documents[keys.wanted(host_id, "vm", vm_id)] = document
    for (host_id, network_id), network in network_documents(view, vms).items():
        documents[keys.wanted(host_id, "network", network_id)] = network
    for (host_id, digest), blob in _blob_documents(view).items():
        documents[keys.wanted(host_id, "blob", digest)] = blob
    return documents


def _blob_documents(view: View) -> dict[tuple[str, str], WantedBlob]:
    """The cleaner's tombstones, as long as the host has the blob and no image names it again."""
    named = {entry.value.spec.digest for entry in view.images.values()}
    return {
        (host_id, digest): tombstone.value
        for (host_id, digest), tombstone in view.wanted_blobs.items()
        if digest not in named and view.has_blob(host_id, digest)
    }
