"""The application over a store in memory, and what tests do with it. No scheduler, no host, no network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from werkzeug.test import TestResponse

from ucloud.api.app import create_app
from ucloud.api.site import make_cache
from ucloud.config import ApiSection, Config, HostSection, NetworkSection
from ucloud.errors import NotFound, OutcomeUnknown
from ucloud.model.claim import Claim
from ucloud.model.image import Image, ImageFormat, ImageSpec
from ucloud.model.meta import Meta
from ucloud.model.seen import GuestState, SeenVm
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.store import keys
from ucloud.store.api import Committed, Item, Put, Txn
from ucloud.store.claims import claims_of
from ucloud.store.codec import encode
from ucloud.store.memory import MemoryStore
from ucloud.system.clock import SystemClock

TOKEN = "a token of the tests"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKAekGi4MjDx6v3dEIJlB5hW8Hzk5ZyzvRNvYyzpfC5X me@here"
AT = "2026-01-31T12:00:00.000Z"


class FakeDoor:
    """Knows the logs that a test gave it."""

    def __init__(self) -> None:
        self.logs: dict[str, bytes] = {}

    def serial_log(self, url: str, vm_id: str, tail_bytes: int) -> bytes:
        if vm_id not in self.logs:
            raise NotFound(f"failed to read the log of {vm_id} at {url}")
        return self.logs[vm_id][-tail_bytes:]


class FaultyStore(MemoryStore):
    """``before_commit`` runs before each commit; with ``lose_answers`` commits happen but their answer is lost.

    ``after_loss`` runs before the loss is told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_commit: Callable[[Txn], None] = lambda _: None
        self.after_loss: Callable[[], None] = lambda: None
        self.lose_answers = 0
        self.lose_requests = 0

    def commit(self, txn: Txn) -> Committed:
        self.before_commit(txn)
        if self.lose_requests:
            self.lose_requests -= 1
            raise OutcomeUnknown("failed to commit: no answer")
        committed = super().commit(txn)
        if self.lose_answers:
            self.lose_answers -= 1
            self.after_loss()
            raise OutcomeUnknown("failed to commit: no answer")
        return committed


class Service:
    def __init__(
        self,
        directory: Path,
        *,
        ula_prefix: str = "fd00:1::/48",
        public_prefixes: tuple[str, ...] = (),
        download_allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        (directory / "token").write_text(f"{TOKEN}\n")
        self.config = Config(
            api=ApiSection(
                token_file=directory / "token",
                body_limit_kib=256,
                image_limit_gib=1,
                download_allowed_hosts=download_allowed_hosts,
            ),
            host=HostSection(pool_directory=directory / "pool"),
            network=NetworkSection(ula_prefix=ula_prefix, public_prefixes=public_prefixes),
        )
        clock = SystemClock()
        self.store = FaultyStore()
        self.door = FakeDoor()
        self.cache = make_cache(self.store, clock)
        self.cache.start()
        pool = DirectoryPool(self.config.host.pool_directory, min_reserve_bytes=0)
        self.app = create_app(self.config, self.store, self.cache, pool=pool, clock=clock, door=self.door)
        self.app.testing = False
        self.cache.wait_for(0, 5.0)

    def close(self) -> None:
        self.cache.stop()
        self.store.close()

    def ask(self, method: str, path: str, *, token: str = TOKEN, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return self.app.test_client().open(path, method=method, headers=headers, **options)

    def get(self, path: str) -> Any:
        """The JSON of a successful GET."""
        response = self.ask("GET", path)
        assert response.status_code == 200, response.text
        return response.json

    def post(self, path: str, body: Any, *, status: int = 201, **options: Any) -> Any:
        response = self.ask("POST", path, json=body, **options)
        assert response.status_code == status, response.text
        return response.json

    def patch(self, path: str, body: Any, *, status: int = 200, **options: Any) -> Any:
        response = self.ask("PATCH", path, json=body, **options)
        assert response.status_code == status, response.text
        return response.json

    def problem(self, method: str, path: str, status: int, **options: Any) -> Any:
        """The problem that a refused request gets."""
        response = self.ask(method, path, **options)
        assert response.status_code == status, response.text
        assert response.content_type == "application/problem+json"
        problem = response.json
        assert problem is not None
        assert problem["type"] == f"urn:ucloud:problem:{problem['code']}"
        assert problem["request_id"] == response.headers["X-Request-Id"]
        return problem

    def seed(self, *puts: Put) -> None:
        """Write as another process would, and wait until the API knows."""
        self.cache.wait_for(self.store.commit(Txn((), puts)).revision, 5.0)

    def seed_image(self, name: str = "tiny", *, virtual_size_bytes: int = 100 * 2**20) -> Image:
        meta = Meta(id=f"image-{name}", name=name, project="default", created_at=AT)
        image = Image(meta, ImageSpec("ab" * 32, ImageFormat.QCOW2, 1000, virtual_size_bytes, "host-1"))
        claim = encode(Claim(owner_id=meta.id, at=AT))
        self.seed(
            Put(keys.spec("image", meta.id), encode(image)), *(Put(claimed, claim) for claimed in claims_of(image))
        )
        return image

    def seed_seen(self, vm: Any, state: GuestState, *, boots: int) -> None:
        """The VM is on host-1, whose agent reports ``state``."""
        seen = SeenVm(
            vm_id=vm["id"],
            generation=1,
            spec_generation=1,
            state=state,
            reason="",
            since=AT,
            boots=boots,
            cpus=vm["spec"]["cpus"],
            memory_mib=vm["spec"]["memory_mib"],
            disk_gib=vm["spec"]["disk_gib"],
        )
        self.seed(Put(keys.seen("host-1", "vm", vm["id"]), encode(seen)))

    def dump(self) -> dict[str, Item]:
        """All that is stored."""
        return {item.key: item for item in self.store.list(keys.ROOT).items}

    def in_parallel(self, count: int, work: Callable[[int], None]) -> None:
        """Run ``work(0)`` … at the same time; the first error of any is raised."""
        errors: list[BaseException] = []

        def run(index: int) -> None:
            try:
                work(index)
            except BaseException as error:  # noqa: BLE001 re-raised below, in the test's own thread
                errors.append(error)

        threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
