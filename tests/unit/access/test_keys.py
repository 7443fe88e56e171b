"""The key file: what is stored, who is found, what happens when it changes."""

from __future__ import annotations

import json
import logging
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.access.keys import Key, KeyFile, changing, digest_of, key_id, new_token, read_keys, write_keys
from flowdex_orchestrator.access.roles import Role


def make_key(name: str = "web", token: str | None = None, **fields: Any) -> tuple[str, Key]:
    token = token or new_token()
    found = {"roles": ["search"], "created": datetime.now(timezone.utc), **fields}
    return token, Key.model_validate({"id": key_id(token), "name": name, "sha256": digest_of(token).hex(), **found})


def test_tokens_are_long_random_and_carry_their_id() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        prefix, name, secret = token.split("_", 2)
        assert (prefix, len(name), len(secret)) == ("fdx", 12, 43)  # 43 characters of base64 are 256 bits
        assert key_id(token) == name
    assert key_id("fdx_short") is None
    assert key_id("") is None


def test_the_file_holds_hashes_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token, key = make_key(roles=["search", "index"], tenant="acme", rate=5, concurrent=2)
    write_keys(path, [key])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert token not in text and token.split("_", 2)[2] not in text
    assert json.loads(text)["keys"][0]["roles"] == ["index", "search"]
    assert read_keys(path) == [key]
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_whole_token_is_found(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token, key = make_key()
    other, _ = make_key("other")
    write_keys(path, [key])
    file = KeyFile(path)
    assert file.find(token) == key
    for wrong in ("", "x", other, token[:-1], token + "a", token[:17] + other[17:], token.upper(), "fdx_é"):
        assert file.find(wrong) is None, wrong


def test_changes_are_seen_and_damage_keeps_the_old_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = tmp_path / "keys.json"
    (first, one), (second, two) = make_key("one"), make_key("two")
    write_keys(path, [one])
    file = KeyFile(path)
    write_keys(path, [one, two])
    assert file.find(second) is None, "the file is not looked at for every request"
    now[0] += 1
    assert file.find(second) == two
    path.write_text('{"keys": [{"secret": "marker-3141"}]}')
    now[0] += 1
    assert file.find(first) == one
    assert "damaged" in caplog.text and "marker-3141" not in caplog.text
    path.unlink()
    now[0] += 1
    assert file.find(first) == one
    write_keys(path, [two])
    now[0] += 1
    assert file.find(first) is None
    assert file.find(second) == two


def test_a_file_open_to_all_users_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [make_key()[1]])
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        KeyFile(path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"roles": []}, "roles"),
        ({"roles": ["root"]}, "roles"),
        ({"roles": ["admin"], "tenant": "acme"}, "tenant"),
        ({"tenant": "a\x1fb"}, "tenant"),
        ({"rate": 0}, "rate"),
        ({"burst": 3}, "burst goes with rate"),
        ({"concurrent": 0}, "concurrent"),
        ({"name": "a b"}, "name"),
        ({"color": "red"}, "color"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = tmp_path / "keys.json"
    entry = {
        **json.loads(make_key()[1].model_dump_json(exclude_none=True)),
        **fields,
    }
    path.write_text(json.dumps({"version": 1, "keys": [entry]}))
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_keys(path)
    assert entry["sha256"] not in str(raised.value)


def test_names_and_ids_are_unique(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, key = make_key()
    path.write_text(json.dumps({"keys": [json.loads(key.model_dump_json())] * 2}))
    with pytest.raises(ConfigurationError, match="two keys have the same"):
        read_keys(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_keys(tmp_path / "none.json")


def test_expiry() -> None:
    now = datetime.now(timezone.utc)
    assert make_key(expires=now - timedelta(seconds=1))[1].expired
    assert not make_key(expires=now + timedelta(hours=1))[1].expired
    assert not make_key()[1].expired
    naive = (now + timedelta(hours=1)).replace(tzinfo=None)
    assert not make_key(expires=naive)[1].expired, "a time without a zone is UTC"
    assert make_key()[1].roles == {Role.SEARCH}


def test_a_newer_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, key = make_key()
    write_keys(path, [key])
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 2, "new": 1}))
    with pytest.raises(ConfigurationError, match=r"keys.json is of format 2; this is flowdex .* formats up to 1"):
        read_keys(path)
    path.write_text(json.dumps({**content, "version": "x"}))
    with pytest.raises(ConfigurationError, match="damaged"):
        read_keys(path)


def test_changes_at_once_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "a" / "keys.json"

    def add(number: int) -> None:
        with changing(path):
            known = read_keys(path) if path.exists() else []
            time.sleep(0.01)  # long enough for the others to have read the same
            write_keys(path, [*known, make_key(f"key-{number}")[1]])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    assert {each.name for each in read_keys(path)} == {f"key-{number}" for number in range(6)}
