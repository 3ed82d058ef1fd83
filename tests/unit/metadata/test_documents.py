"""Documents by path, in both forms."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.samples import WANTED_VM
from ucloud.metadata.documents import VERSIONS, decode_documents, encode_documents, find_document, render_documents
from ucloud.model.wanted import WantedNic

NIC = WantedNic("abcdefgh", "network-a", 100, "02:00:00:00:00:01", "fd00:1::5", "10.0.0.5")
VM = replace(WANTED_VM, name="My VM", nics=(NIC,), keys=(" ssh-ed25519 AAAA me\n",))
DOCUMENTS = render_documents(VM, b"\xff\0#cloud")


def body(path: str) -> bytes:
    found = find_document(DOCUMENTS, path)
    assert found is not None, path
    return found.body


def test_plain() -> None:
    assert body("/ssh-keys") == b"ssh-ed25519 AAAA me\n"
    assert body("/hostname") == b"my-vm\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_openstack(version: str) -> None:
    meta = json.loads(body(f"/openstack/{version}/meta_data.json"))

    assert meta["hostname"] == "my-vm"
    assert meta["name"] == "My VM"
    assert meta["public_keys"] == {"key-0": "ssh-ed25519 AAAA me"}
    assert body(f"/openstack/{version}/user_data") == b"\xff\0#cloud"
    assert json.loads(body(f"/openstack/{version}/vendor_data.json")) == {}
    assert b"user_data\n" in body(f"/openstack/{version}/")


def test_versions_are_listed() -> None:
    assert body("/openstack") == body("/openstack/") == "".join(f"{one}\n" for one in VERSIONS).encode()


def test_network_data() -> None:
    data = json.loads(body("/openstack/latest/network_data.json"))

    assert [link["ethernet_mac_address"] for link in data["links"]] == [NIC.mac]
    assert [network["type"] for network in data["networks"]] == ["ipv4_dhcp", "ipv6_slaac"]


def test_identity_is_stable() -> None:
    again = render_documents(VM, None)

    assert again["/openstack/latest/meta_data.json"] == DOCUMENTS["/openstack/latest/meta_data.json"]
    assert "/openstack/latest/user_data" not in again


@pytest.mark.parametrize(
    "path", ["/", "", "/openstack/1999-01-01/meta_data.json", "/openstack/latest/x", "/ssh-keys/x"]
)
def test_nothing_else(path: str) -> None:
    assert find_document(DOCUMENTS, path) is None


def test_files_keep_every_byte() -> None:
    assert decode_documents(json.loads(json.dumps(encode_documents(DOCUMENTS)))) == DOCUMENTS
