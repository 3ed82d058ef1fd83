"""One TOML file → one frozen Config, whose sections are handed to the rooms. Nothing else reads settings.

Every setting is a field here with its unit in the name and a default that is right for most; an unknown or mistyped
key is an error that names it. Environment variables are read in this room only (``environment``).
"""

from ucloud.config.load import load_config, render_config
from ucloud.config.sections import (
    ApiSection,
    Config,
    EtcdSection,
    GuardSection,
    HostSection,
    LogSection,
    NetworkSection,
    SchedulerSection,
    StoreSection,
)

__all__ = [
    "ApiSection",
    "Config",
    "EtcdSection",
    "GuardSection",
    "HostSection",
    "LogSection",
    "NetworkSection",
    "SchedulerSection",
    "StoreSection",
    "load_config",
    "render_config",
]
