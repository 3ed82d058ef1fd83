"""What people type, as values: sizes, durations, labels, networks with addresses. All pure argparse types."""

from __future__ import annotations

import argparse
import ipaddress
import re

from ucloud.client import Object

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([mgt])(?:i?b)?", re.IGNORECASE)
_DECIMAL = re.compile(r"\d+(?:\.\d+)?\s*[kmgt]b", re.IGNORECASE)
_MIB = {"m": 1, "g": 1024, "t": 1024 * 1024}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parse_mib(text: str) -> int:
    """``256M``, ``1G``, ``1.5GiB`` as MiB. Units are powers of two; ``GB`` could mean two things and is refused."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or _DECIMAL.fullmatch(text.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 256M, 1G or 1.5GiB (powers of two)")
    mib = float(match[1]) * _MIB[match[2].lower()]
    if not mib.is_integer() or mib < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of MiB")
    return int(mib)


def parse_gib(text: str) -> int:
    """Like parse_mib, in GiB, which must come out whole."""
    mib = parse_mib(text)
    if mib % 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of GiB")
    return mib // 1024


def parse_count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def parse_seconds(text: str) -> float:
    """``90``, ``90s``, ``5m``, ``1h``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def parse_whole_seconds(text: str) -> int:
    return round(parse_seconds(text))


def parse_switch(text: str) -> bool:
    words = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return words[text.lower()]


def parse_label(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not a label such as role=web")
    return name, value


def parse_network(text: str) -> Object:
    """``main``, or with addresses ``main=fd00::5`` or ``main=fd00::5,10.0.0.5``."""
    name, _, addresses = text.partition("=")
    nic: Object = {"network": name}
    for address in filter(None, addresses.split(",")):
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{address!r} is not an IP address") from error
        field = f"ipv{parsed.version}"
        if field in nic:
            raise argparse.ArgumentTypeError(f"{text!r} has two IPv{parsed.version} addresses")
        nic[field] = str(parsed)
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} names no network")
    return nic
