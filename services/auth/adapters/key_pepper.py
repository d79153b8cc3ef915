"""Which pepper the database's keys were digested with, so that another one is told at the start and not by callers."""

from __future__ import annotations

import hmac
from typing import Final

import psycopg

from services.auth.domain import keys

_TEXT: Final = "the pepper of this database's keys"
"""What is digested: no key, for keys have other forms."""


def see_pepper(url: str, pepper: bytes) -> None:
    """Note the pepper of a database that knows of none yet. Raises SystemExit where it knows another.

    Args:
        url: Of a database whose schema is up to date; a session of its own.
        pepper: What keys and tokens are digested with.
    """
    own = keys.digest(pepper, _TEXT)
    with psycopg.connect(url) as link:
        link.execute(
            "insert into key_pepper (digest) values (%s) on conflict (the_one)"
            " do update set digest = excluded.digest, since = now() where key_pepper.digest = ''",
            [own],
        )
        row = link.execute("select digest from key_pepper").fetchone()
    if row is not None and not hmac.compare_digest(row[0], own):
        raise SystemExit(
            "MOA_KEY_PEPPER is not the one that this database was used with before, so that no key of it would work: "
            "set that one (with `make run` it stands in secrets.env beside the database), or give up all keys and "
            "sessions for a new one by `python -m services.auth forget-pepper`"
        )


def forget_pepper(url: str) -> None:
    """Have the next start note its pepper, whatever it is, and `bootstrap` give an administrator a key by it."""
    with psycopg.connect(url) as link:
        link.execute(
            "insert into key_pepper (digest, owes_key) values ('', true)"
            " on conflict (the_one) do update set digest = '', owes_key = true"
        )
