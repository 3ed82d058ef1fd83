"""The synchronous HTTP client of the API: what the CLI, tools and tests use, and a model for other clients.

``profile`` finds which cloud to talk to · ``transport`` one request with deadlines, retries and keep-alive ·
``problems`` turns refusals into exceptions · ``calls`` the API's operations · ``waiting`` polls until an object is as
wanted. Standard library only, so that it starts fast and goes wherever Python does.

Must hold: a request that may have had an effect is sent again only if that changes nothing more (a read, a delete, or
an idempotency key by which the API knows it for the same).
"""

from ucloud.client.calls import Client
from ucloud.client.problems import ClientError
from ucloud.client.profile import Profile, find_profile, load_profile, render_profile
from ucloud.client.transport import Object

__all__ = ["Client", "ClientError", "Object", "Profile", "find_profile", "load_profile", "render_profile"]
