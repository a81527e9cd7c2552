"""Rows that are sealed: what is read is what was written there, or an error."""

from __future__ import annotations

import json

import pytest
from certes_service.storage.errors import CorruptedError
from certes_service.storage.sealing import sealed, unsealed

VALUE = {"verdict": "not_contracting", "rate": None, "attempts": [{"a": 1}]}


def test_what_is_sealed_comes_back() -> None:
    assert unsealed(sealed(VALUE, "one", "d"), "one", "d") == VALUE


@pytest.mark.parametrize("place", [("two", "d"), ("one", "e"), ("d", "one"), ("one",), ("oned",), ("one", "d", ""), ()])
def test_it_belongs_where_it_was_written(place: tuple[str, ...]) -> None:
    text = sealed(VALUE, "one", "d")
    with pytest.raises(CorruptedError):
        unsealed(text, *place)


def test_a_place_is_no_concatenation() -> None:
    """Else a tenant's name could end as another's question begins."""
    with pytest.raises(CorruptedError):
        unsealed(sealed(VALUE, "on", "ed"), "one", "d")


def test_another_verdict_is_noticed() -> None:
    text = sealed(VALUE, "one", "d")
    changed = text.replace("not_contracting", "contracting")
    assert changed != text
    with pytest.raises(CorruptedError):
        unsealed(changed, "one", "d")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "1", '"x"', "{}", '{"body": "{}"}', '{"sha256": "0"}', '{"sha256": "0", "body": 1}']
)
def test_what_is_no_seal_is_damaged(text: str) -> None:
    with pytest.raises(CorruptedError):
        unsealed(text, "one", "d")


@pytest.mark.parametrize("value", [[], "x", None])
def test_what_is_sealed_is_an_object(value: object) -> None:
    with pytest.raises(CorruptedError):
        unsealed(sealed(value, "one"), "one")  # type: ignore[arg-type]


def test_the_digest_is_of_body_and_place() -> None:
    """The format of every database that there is: a change of it forgets all answers."""
    import hashlib

    found = json.loads(sealed({"a": 1}, "one", "d"))
    assert found["body"] == '{"a":1}'
    assert found["sha256"] == hashlib.sha256(json.dumps(["one", "d", '{"a":1}']).encode()).hexdigest()
