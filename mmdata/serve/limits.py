"""What one client may cost the others, and who may ask at all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from mmdata.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHORTEST_KEY = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a request. What is beyond one is refused before it costs anything."""

    body: int = 8 << 20  # bytes
    body_seconds: float = 20.0  # for a body to arrive
    k: int = 1000
    terms: int = 16  # of a query; so many indexes and filters too
    seconds: float = 30.0  # for a search
    batch: int = 64  # queries that are searched, or encoded, together
    waiting: int = 256  # queries that wait for their turn
    requests: int = 256  # requests that are open at once


@dataclass(frozen=True, slots=True)
class Access:
    """Which names the service answers to, and the key that it asks for; None: no key."""

    hosts: frozenset[str] = field(default_factory=lambda: frozenset(LOOPBACK))
    api_key: str | None = None


USUAL = Limits()
THIS_MACHINE = Access()


def access(host: str, key_file: Path | None, allowed: Sequence[str]) -> Access:
    """The access of a service that listens at `host`.

    Raises ConfigError for a host that others can reach without a key, and for a key file that holds none.
    """
    if key_file is None and not is_loopback(host):
        raise ConfigError(f"--host {host} lets others in; give them a key with --api-key-file, or stay on 127.0.0.1")
    names = {name.lower().strip("[]") for name in (host, *allowed)}
    return Access(frozenset(LOOPBACK) | names, None if key_file is None else read_key(key_file))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(path: Path) -> str:
    """The key in a file. ConfigError when it is too short to be one."""
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {error}") from error
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable():
        raise ConfigError(f"--api-key-file {path}: a key is {SHORTEST_KEY} ASCII characters at least, on one line")
    return key
