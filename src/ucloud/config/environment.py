"""What ucloud takes from environment variables: nothing that decides what a cloud does, only which and how to show.

UCLOUD_PROFILE (which cloud the client talks to) · NO_COLOR and TERM (how to show) · HOME (where a person's files are).
"""

from __future__ import annotations

import os
from pathlib import Path


def chosen_profile() -> Path | None:
    """The client profile that UCLOUD_PROFILE names."""
    value = os.environ.get("UCLOUD_PROFILE", "")
    return Path(value).expanduser() if value else None


def personal_directory() -> Path:
    """Where a person's own files of ucloud are: ``~/.ucloud``."""
    return Path.home() / ".ucloud"


def wants_plain_text() -> bool:
    """Whether colours are unwanted (NO_COLOR, see no-color.org) or cannot be shown (TERM=dumb)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
