"""Object stores as they are: slow, busy, forgetful. How long they are waited for, and what their errors mean."""

import io
import os
import re
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import from_url

from mmdata.errors import ConfigError, NotFound, StorageError

Result = TypeVar("Result")

RETRIES: Any = {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}
"""obstore waits 0.1 s before the first retry of a request, twice as long before the next, 15 s at most."""
READ_TIMEOUT = "30s"  # without a byte
TIMEOUT = "10m"  # of a whole request: 256 MB at half a megabyte a second
CLIENT = ("timeout", "read_timeout", "connect_timeout", "allow_http", "allow_invalid_certificates", "proxy_url")
PREFIXES = {"s3": "AWS", "s3a": "AWS", "gs": "GOOGLE", "az": "AZURE", "abfs": "AZURE", "abfss": "AZURE"}
PAUSES = (0.2, 0.4, 0.8)  # seconds between tries that end without an answer
REPEATED = re.compile(r"Server returned|, after (\d+) retries, max_retries: \1,")  # obstore has given up then
ANSWER = re.compile(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", re.DOTALL)
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
NO_ACCESS = ("403 Forbidden", "401 Unauthorized", "169.254.169.254", "metadata.google.internal", "ACCOUNT_KEY")
KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
)
METADATA = ("169.254.169.254", 80)  # where a machine of Amazon's asks for credentials
CREDENTIALS = {
    "AWS": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (the files in ~/.aws are not read)",
    "GOOGLE": "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def has_timeouts(url: str) -> bool:
    """Whether `url` is that of a store behind a network."""
    return url.partition("://")[0] in PREFIXES


def open_remote(url: str, *, stalls: bool = True) -> Any:
    """obstore's store at `url`, with bounded retries and time-outs; the environment goes over our own.

    With `stalls`, a request that is silent for half a minute is given up and tried again. To send a large
    file takes longer than that, and an answer comes only after its last byte.
    """
    if not has_timeouts(url):
        return from_url(url)
    prefix = PREFIXES[url.partition("://")[0]]
    if prefix == "AWS" and not any(map(os.environ.get, KEYS)) and not _answers(METADATA):
        remedy = f"set {CREDENTIALS[prefix]}, or AWS_SKIP_SIGNATURE=true where none are needed"
        raise ConfigError(f"no credentials for {url}: {remedy}")
    own = {"timeout": TIMEOUT} | ({"read_timeout": READ_TIMEOUT} if stalls else {})
    said = {name: os.environ.get(f"{prefix}_{name.upper()}") for name in CLIENT}
    told: dict[str, Any] = {name: value for name, value in said.items() if value and (stalls or "read" not in name)}
    told |= {name: value.lower() in ("1", "true") for name, value in told.items() if name.startswith("allow")}
    options: Any = own | told  # obstore has a type for each prefix
    return from_url(url, client_options=options, retry_config=RETRIES)


def _answers(address: tuple[str, int]) -> bool:
    """obstore would ask this address for minutes before it says that there are no credentials."""
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


class Ranges(io.RawIOBase):
    """A file of an object store as Python's own file objects are: obstore's reader is no context manager.

    `read_range` gives so many bytes from a place.
    """

    def __init__(self, read_range: Callable[[int, int], memoryview], size: int) -> None:
        self._read_range, self._size, self._place = read_range, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readall(self) -> bytes:
        """In one request: Python's own asks for 8 kB at a time."""
        data = self._read_range(self._place, max(0, self._size - self._place))
        self._place = max(self._place, self._size)
        return bytes(data)

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._place))
        buffer[:size] = self._read_range(self._place, size)
        self._place += size
        return size


def put_new(store: Any, path: str, data: Any) -> bool:
    """Create a file; False when it is there.

    False may also mean that it is the file of a first try, whose answer was lost: so who gets False compares bytes.
    """
    for pause in PAUSES:
        try:
            repeat(lambda: obstore.put(store, path, memoryview(data), mode="create"))
            return True
        except AlreadyExistsError as error:
            if "ConditionalRequestConflict" not in str(error):
                return False
        time.sleep(pause)  # S3 says so when another writer of the same file is not done yet
    return False


def repeat(request: Callable[[], Result]) -> Result:
    """A request that may be made twice. obstore repeats none that changes something, and none whose answer is cut."""
    for pause in PAUSES:
        try:
            return request()
        except GenericError as error:
            if REPEATED.search(str(error)):
                raise
        time.sleep(pause)
    return request()


def problem(what: str, error: Exception) -> StorageError:
    """What a failure of an object store means, with the bucket, the key and the remedy."""
    text = str(error)
    answer = ANSWER.search(text)
    reason = f"{answer[1]}: {answer[2]}" if answer else text.split("\n")[0]
    scheme, _, rest = what.partition("://")
    prefix, bucket = PREFIXES.get(scheme, "AWS"), rest.partition("/")[0]
    if any(sign in text for sign in NO_BUCKET):
        return NotFound(f"{what}: there is no bucket {bucket!r} at this endpoint; make it, or check {prefix}_ENDPOINT")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{what} does not exist")
    if any(sign in text for sign in NO_ACCESS):
        return StorageError(f"no access to {what}: {reason}; check {CREDENTIALS[prefix]}")
    if "builder error" in text:
        return StorageError(f"cannot access {what}: an endpoint without TLS needs {prefix}_ALLOW_HTTP=true")
    return StorageError(f"cannot access {what}: {reason}; run the same command again when the store answers")
