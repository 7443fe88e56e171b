"""The key file: who may call, as hashes.

    add: fdx_<id>_<256 random bits>, shown once --SHA-256--> keys.json (mode 0600) --KeyFile--> {id: Key}

A token holds its key's id, so that one hash is compared, in constant time, and not all of them. The tokens are random
and long, so a plain hash is enough: there is nothing to guess (NIST SP 800-63B, section 5.1.2.2, on look-up secrets).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flowdex.errors import ConfigurationError
from flowdex.formats import refuse_newer
from flowdex_orchestrator.access.roles import Role

__all__ = ["Key", "KeyFile", "changing", "digest_of", "key_id", "new_token", "read_keys", "write_keys"]

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"fdx_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_VERSION: Literal[1] = 1
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_LOOK_SECONDS = 1.0  # between looks at the file: that long a key that was taken away goes on working
_MOST_BYTES = 16_000_000


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)


_Time = Annotated[datetime, AfterValidator(_aware)]


class Key(BaseModel):
    """One key.

    Attributes:
        id: What its token begins with, in the open.
        name: Who has it.
        sha256: Of the token, in hexadecimal.
        roles: What it may do.
        tenant: Whose documents it sees and writes; None for all.
        rate: Requests a second; None for no limit.
        burst: Requests at once, on top of the rate; twice the rate where not given.
        concurrent: Requests in flight; None for no limit.
        created: When it was made.
        expires: When it ends; None for never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: str = Field(pattern=_NAME)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    roles: frozenset[Role] = Field(min_length=1)
    tenant: str | None = Field(default=None, pattern=_NAME)
    rate: float | None = Field(default=None, gt=0)
    burst: int | None = Field(default=None, ge=1)
    concurrent: int | None = Field(default=None, ge=1)
    created: _Time
    expires: _Time | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Key:
        if self.tenant is not None and not self.roles <= {Role.SEARCH, Role.INDEX}:
            raise ValueError("the key of a tenant has the roles search and index at most")
        if self.burst is not None and self.rate is None:
            raise ValueError("burst goes with rate")
        return self

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires.timestamp() <= time.time()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = _VERSION
    keys: list[Key] = []

    @model_validator(mode="after")
    def _unique(self) -> _File:
        for attribute in ("id", "name"):
            values = [getattr(key, attribute) for key in self.keys]
            if len(set(values)) != len(values):
                raise ValueError(f"two keys have the same {attribute}")
        return self


def new_token() -> str:
    """A token of 256 random bits."""
    return f"fdx_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def key_id(token: str) -> str | None:
    """The id in a token; None where it is no token."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def digest_of(token: str) -> bytes:
    """The SHA-256 of a token."""
    return hashlib.sha256(token.encode()).digest()


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        ConfigurationError: It cannot be read, or is no key file. The message holds nothing of its content.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"the key file {path} cannot be read: {reason}; `flowdex keys add` makes one"
        ) from None
    if len(data) > _MOST_BYTES:
        raise ConfigurationError(f"the key file {path} has more than {_MOST_BYTES:,} bytes")
    _refuse_newer(path, data)
    try:
        return _File.model_validate_json(data).keys
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(f"the key file {path} is damaged: {place}: {first['msg']}") from None


def _refuse_newer(path: Path, data: bytes) -> None:
    """Tell a file of a newer flowdex from one that is damaged: what it says more may be what keeps somebody out."""
    try:
        version = json.loads(data)["version"]
    except (ValueError, KeyError, TypeError):
        return  # which the schema says better
    if isinstance(version, int):
        refuse_newer(f"the key file {path}", version, _VERSION, remedy="its keys open nothing here")


def write_keys(path: Path, keys: list[Key]) -> None:
    """Write a key file in one step, readable by its owner alone.

    Raises:
        ConfigurationError: It cannot be written.
    """
    content = _File(keys=keys).model_dump(mode="json", exclude_none=True)
    for key in content["keys"]:
        key["roles"].sort()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(json.dumps(content, indent=1) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"the key file {path} cannot be written: {reason}") from None


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """Read, change and write a key file as one: of two commands at once, one would bring back what the other removed.

    Raises:
        ConfigurationError: Its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # the file itself is another one after each change
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"the key file {path} cannot be written: {reason}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class KeyFile:
    """The keys of a file that may change while it is used.

    Args:
        path: The file. One that is damaged or gone later leaves the keys as they were, and is reported in the log.

    Raises:
        ConfigurationError: It cannot be read now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _stamp(path)  # before it is read: a change in between is seen at the next look
        self._keys = {key.id: key for key in read_keys(path)}
        self._warn_if_readable_by_others()
        self._looked = time.monotonic()

    def keys(self) -> Mapping[str, Key]:
        """The keys by id, as of at most a second ago."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            stamp = _stamp(self.path)
            if stamp != self._seen:
                self._seen = stamp
                self._read_again()
        return self._keys

    def find(self, token: str) -> Key | None:
        """The key of a token; None where it has none."""
        name = key_id(token)
        key = self.keys().get(name) if name is not None else None
        expected = bytes.fromhex(key.sha256) if key is not None else b"\0" * 32
        return key if hmac.compare_digest(digest_of(token), expected) else None

    def _read_again(self) -> None:
        try:
            self._keys = {key.id: key for key in read_keys(self.path)}
        except ConfigurationError as error:
            logger.error("%s; the keys stay as they were", error.message)
            return
        logger.info("read %d keys of %s", len(self._keys), self.path)
        self._warn_if_readable_by_others()

    def _warn_if_readable_by_others(self) -> None:
        try:
            open_to_others = self.path.stat().st_mode & 0o007
        except OSError:
            return
        if open_to_others:
            logger.warning("the key file %s is open to all users of this machine: chmod 600 %s", self.path, self.path)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
