"""The record of which etcd members vote and where their keepers are, which guards read. (docs/failover.md, B.)

Key: writes ``site/members``. Must hold: a changed record has a higher version; an added member is written here, and
confirmed by every guard, before etcd takes it in; a removed one is taken out here after etcd has let it go.
"""

from __future__ import annotations

from collections.abc import Mapping

from ucloud.config.sections import StoreSection
from ucloud.errors import Conflict, NotFound
from ucloud.model.guard import Members, Voter
from ucloud.store import keys
from ucloud.store.api import Put, Store, Txn, unchanged
from ucloud.store.codec import decode_as, encode
from ucloud.store.etcd_calls import Calls, question
from ucloud.store.etcd_members import Tls
from ucloud.system.clock import Clock

_MEMBER_LIST = "/v3/cluster/member/list"


def observe_voters(settings: StoreSection, doors: Mapping[str, str], clock: Clock) -> tuple[str, tuple[Voter, ...]]:
    """The cluster's id and its voters, as etcd says. ``doors`` are the URLs of the keepers by member name.

    Raises NotFound if a voter has no door: guards must not believe in a list that lacks one.
    """
    tls = Tls(settings.ca_file, settings.cert_file, settings.key_file)
    calls = Calls(settings.endpoints, tls, None, timeout_s=settings.timeout_s, clock=clock)
    try:
        answer = calls.call(question(_MEMBER_LIST, {}))
    finally:
        calls.close()
    voters = []
    for one in answer["members"]:
        name = str(one.get("name", ""))
        if one.get("isLearner"):
            continue
        if name not in doors:
            raise NotFound(f"failed to list etcd's voters: the keeper of member {name or one['ID']} is not known")
        voters.append(Voter(name, str(one["ID"]), doors[name]))
    return str(answer["header"]["cluster_id"]), tuple(sorted(voters, key=lambda voter: voter.name))


def ensure_members(store: Store, cluster_id: str, voters: tuple[Voter, ...]) -> Members:
    """Make this the record, with the next version if it was another one. Raises Conflict if somebody else wrote."""
    found = store.get(keys.members())
    old = decode_as(Members, found.value) if found else None
    if old is not None and (old.cluster_id, old.voters) == (cluster_id, voters):
        return old
    new = Members(cluster_id, (old.version if old else 0) + 1, voters)
    was = unchanged(keys.members(), found.mod_revision if found else 0)
    if not store.commit(Txn((was,), (Put(keys.members(), encode(new)),))).ok:
        raise Conflict("failed to write down who votes: somebody else did meanwhile", hint="try again")
    return new
