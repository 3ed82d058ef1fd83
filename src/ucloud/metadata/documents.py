"""The documents of one VM, by path. Pure.

The OpenStack form is what unmodified images look for (cloud-init's and cloudbase-init's OpenStack sources); every known
version serves the same files. The plain form is one value per path.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ucloud.model.devices import dns_label
from ucloud.model.wanted import WantedNic, WantedVm

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"

# The versions that cloud-init knows; it takes the latest that both sides have.
VERSIONS = (
    *("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22"),
    *("2018-08-27", "latest"),
)
_NAMESPACE = uuid.UUID("75636c6f-7564-4d65-b461-646174610000")


@dataclass(frozen=True, slots=True)
class Document:
    kind: str
    body: bytes


def render_documents(vm: WantedVm, user_data: bytes | None) -> dict[str, Document]:
    """All documents of a VM. Keys are paths without a slash at the end."""
    latest = {
        "meta_data.json": _json(_meta_data(vm)),
        "network_data.json": _json(_network_data(vm.nics)),
        "vendor_data.json": _json({}),
        "vendor_data2.json": _json({}),
    }
    if user_data is not None:
        latest["user_data"] = Document(BYTES, user_data)
    return {
        "/ssh-keys": _text(_lines(key.strip() for key in vm.keys)),
        "/hostname": _text(dns_label(vm.name) + "\n"),
        "/openstack": _text(_lines(VERSIONS)),
        "/openstack/latest": _text(_lines(sorted(latest))),
        **{f"/openstack/latest/{name}": document for name, document in latest.items()},
    }


def find_document(documents: Mapping[str, Document], path: str) -> Document | None:
    """The document at a path as a guest asks for it: any known version, with or without a slash at the end."""
    words = [word for word in path.split("/") if word]
    if len(words) > 1 and words[0] == "openstack" and words[1] in VERSIONS:
        words[1] = "latest"
    return documents.get("/" + "/".join(words))


def encode_documents(documents: Mapping[str, Document]) -> dict[str, dict[str, str]]:
    return {
        path: {"kind": document.kind, "body": base64.b64encode(document.body).decode()}
        for path, document in documents.items()
    }


def decode_documents(value: Mapping[str, Mapping[str, str]]) -> dict[str, Document]:
    return {path: Document(one["kind"], base64.b64decode(one["body"])) for path, one in value.items()}


def _meta_data(vm: WantedVm) -> dict[str, Any]:
    keys = {f"key-{number}": key.strip() for number, key in enumerate(vm.keys)}
    return {
        "uuid": str(uuid.uuid5(_NAMESPACE, vm.vm_id)),
        "name": vm.name,
        "hostname": dns_label(vm.name),
        "project_id": vm.project,
        "availability_zone": "ucloud",
        "launch_index": 0,
        "meta": {"ucloud_id": vm.vm_id},
        "public_keys": keys,
        "keys": [{"name": name, "type": "ssh", "data": key} for name, key in keys.items()],
    }


def _network_data(nics: tuple[WantedNic, ...]) -> dict[str, Any]:
    """MTU and name servers come by DHCP and router advertisements, so they are not said here."""
    links, networks = [], []
    for nic in nics:
        link = f"nic-{nic.id}"
        links.append({"id": link, "type": "phy", "ethernet_mac_address": nic.mac, "vif_id": nic.id})
        if nic.ipv4:
            networks.append({"id": f"{link}-ipv4", "type": "ipv4_dhcp", "link": link, "network_id": nic.network_id})
        networks.append({"id": f"{link}-ipv6", "type": "ipv6_slaac", "link": link, "network_id": nic.network_id})
    return {"links": links, "networks": networks, "services": []}


def _json(value: Any) -> Document:
    return Document(JSON, json.dumps(value, sort_keys=True).encode())


def _text(text: str) -> Document:
    return Document(TEXT, text.encode())


def _lines(words: Any) -> str:
    return "".join(f"{word}\n" for word in words)
