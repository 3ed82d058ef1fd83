"""etcd's flags, and what the keeper remembers and may say."""

from __future__ import annotations

from pathlib import Path

from tests.unit.clock import ManualClock
from ucloud.config.sections import Config, EtcdSection
from ucloud.local.keeper import render_etcd_command
from ucloud.local.member import Member, MemberIds


def cluster_flags(etcd: EtcdSection) -> list[str]:
    return [word for word in render_etcd_command(Config(etcd=etcd)) if word.startswith("--initial-cluster")]


def test_a_member_begins_alone_or_with_others() -> None:
    alone = EtcdSection(member="m1", peer_url="https://a:1")
    assert cluster_flags(alone) == ["--initial-cluster=m1=https://a:1"]
    together = EtcdSection(member="m1", initial_cluster="m1=https://a:1,m2=https://b:1")
    assert cluster_flags(together) == ["--initial-cluster=m1=https://a:1,m2=https://b:1"]


def test_ids_are_remembered_as_long_as_the_data_is_there(tmp_path: Path) -> None:
    etcd = EtcdSection(member="m1", data_directory=tmp_path / "etcd")
    ids = MemberIds.beside(etcd)
    ids.write(("9", "1"))
    assert ids.path == tmp_path / "keeper-m1.json"
    assert ids.read() is None
    (tmp_path / "etcd" / "member").mkdir(parents=True)
    assert MemberIds.beside(etcd).read() == ("9", "1")
    ids.path.write_text("{")
    assert ids.read() is None


def test_a_member_that_never_said_who_it_is_says_nothing(tmp_path: Path) -> None:
    etcd = EtcdSection(data_directory=tmp_path / "etcd")
    member = Member(etcd, tmp_path / "ca.pem", MemberIds.beside(etcd), ManualClock())
    assert member.answer() is None
