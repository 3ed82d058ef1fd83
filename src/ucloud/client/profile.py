"""Which cloud a client talks to: a small TOML file ``{url, token_file, stream_url?, others?}``, found or named.

Looked for in this order: the file named by the caller, UCLOUD_PROFILE, ``~/.ucloud/client.toml``, and the one that
``ucloud up`` writes into the default state directory.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ucloud.config.environment import chosen_profile, personal_directory
from ucloud.config.sections import DEFAULT_STATE_DIRECTORY
from ucloud.errors import InvalidInput, MissingPrerequisite

PROFILE_NAME = "client.toml"
_UP_HINT = "start a cloud with 'ucloud up', or name a profile with --profile or UCLOUD_PROFILE"


@dataclass(frozen=True, slots=True)
class Profile:
    """``url`` is the API's base, such as ``http://127.0.0.1:8700/v1``. ``stream_url`` "" means: ask the API.

    ``others`` are further APIs of the same cloud, asked if the first one cannot be reached.
    """

    url: str
    token_file: Path
    stream_url: str = ""
    others: tuple[str, ...] = ()

    def read_token(self) -> str:
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise MissingPrerequisite(
                f"failed to read the token {self.token_file}: {error.strerror}",
                hint="only its owner may read it; is it yours, and is the cloud up?",
                code="no_token",
            ) from error


def find_profile(named: Path | None = None) -> Profile:
    """The profile to use. Raises MissingPrerequisite if there is none, InvalidInput for a broken one."""
    if chosen := named or chosen_profile():
        return load_profile(chosen)
    places = (personal_directory() / PROFILE_NAME, DEFAULT_STATE_DIRECTORY / PROFILE_NAME)
    for place in places:
        if _is_there(place):
            return load_profile(place)
    looked = " or ".join(str(place) for place in places)
    raise MissingPrerequisite(f"failed to find a cloud: no profile at {looked}", hint=_UP_HINT, code="no_profile")


def load_profile(path: Path) -> Profile:
    try:
        text = path.read_text()
    except OSError as error:
        raise MissingPrerequisite(
            f"failed to read the profile {path}: {error.strerror}", hint=_UP_HINT, code="no_profile"
        ) from error
    return parse_profile(text, directory=path.parent, origin=str(path))


def parse_profile(text: str, *, directory: Path, origin: str) -> Profile:
    """A relative ``token_file`` is beside the profile."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"failed to parse {origin}: {error}", code="bad_profile") from error
    others = values.pop("others", [])
    unknown = sorted(set(values) - {"url", "token_file", "stream_url"})
    texts = [*values.values(), *(others if isinstance(others, list) else [None])]
    if unknown or not all(isinstance(value, str) for value in texts):
        raise InvalidInput(
            f"failed to parse {origin}: expected the texts url, token_file and stream_url, and the list others only",
            code="bad_profile",
        )
    if "url" not in values or "token_file" not in values:
        raise InvalidInput(f"failed to parse {origin}: url and token_file are needed", code="bad_profile")
    urls = [url.rstrip("/") for url in (values["url"], *others)]
    if not all(urlsplit(url).scheme in ("http", "https") for url in urls):
        raise InvalidInput(f"failed to parse {origin}: url must begin with http:// or https://", code="bad_profile")
    token_file = directory / Path(values["token_file"]).expanduser()
    return Profile(urls[0], token_file, values.get("stream_url", "").rstrip("/"), tuple(urls[1:]))


def render_profile(profile: Profile) -> str:
    """The file that parses to ``profile``."""
    lines = [f"url = {json.dumps(profile.url)}", f"token_file = {json.dumps(str(profile.token_file))}"]
    if profile.stream_url:
        lines.append(f"stream_url = {json.dumps(profile.stream_url)}")
    if profile.others:
        lines.append(f"others = {json.dumps(list(profile.others))}")
    return "\n".join(lines) + "\n"


def _is_there(path: Path) -> bool:
    """Also False where another user's directory may not be looked into."""
    try:
        return path.is_file()
    except PermissionError:
        return False
