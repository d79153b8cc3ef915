"""Changes of a schema leave the release before working: it runs beside this one while processes are exchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.auth import migrations as auth
from services.tasks import migrate as tasks

RELEASED = {"auth": int(auth.SCHEMA.works_from or 0), "tasks": int(tasks.SCHEMA.works_from or 0)}
"""The last change of each schema that the release before made; a new release moves these up."""
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TAKES_AWAY = {
    "takes a table, a column, a view or a function away": re.compile(
        r"\bdrop\s+(table|column|view|materialized view|function|procedure|schema|type|sequence)\b"
    ),
    "renames what others use": re.compile(r"\balter\s+(table|view|function|schema|type|sequence)\b[^;]*\brename\b"),
    "changes a column's type": re.compile(r"\balter\s+(column\s+)?\w+\s+(set\s+data\s+)?type\b"),
    "demands what others do not write": re.compile(
        r"\bset\s+not\s+null\b|\badd\s+column\b(?:(?!default|generated|,\s*add\b)[^;])*?\bnot\s+null\b"
        r"(?:(?!default|generated)[^;,])*(?:[;,]|$)"
    ),
    "takes a default away": re.compile(r"\bdrop\s+default\b"),
    "refuses rows that others write": re.compile(
        r"\balter\s+table\b[^;]*\badd\s+(constraint\s+\w+\s+)?(check|unique|primary\s+key|foreign\s+key|exclude)\b"
    ),
    "empties a table": re.compile(r"\btruncate\b"),
}


def faults(statements: str) -> list[str]:
    """Return what in a change the release before would not survive."""
    text = _COMMENTS.sub(" ", statements.lower())
    return [name for name, pattern in _TAKES_AWAY.items() if pattern.search(text)]


def _since(service: str) -> list[Path]:
    found = sorted(Path(f"services/{service}/migrations/versions").glob("[0-9]*.sql"))
    return [path for path in found if int(path.name[:4]) > RELEASED[service]]


@pytest.mark.parametrize("service", RELEASED)
def test_changes_since_the_release_before_only_add(service: str) -> None:
    """Its processes read and write on behind each of them; what they no longer need goes a release later."""
    assert {path.name: found for path in _since(service) if (found := faults(path.read_text()))} == {}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("alter table keys drop column name;", "takes a table, a column, a view or a function away"),
        ("alter table keys rename column name to title;", "renames what others use"),
        ("alter table keys rename to tokens;", "renames what others use"),
        ("alter table keys alter column name type int;", "changes a column's type"),
        ("alter table keys alter name set data type int;", "changes a column's type"),
        ("alter table keys alter column name set not null;", "demands what others do not write"),
        ("alter table keys add column a text not null;", "demands what others do not write"),
        ("alter table keys add column a int, add column b text not null;", "demands what others do not write"),
        ("alter table keys add constraint named check (name <> '');", "refuses rows that others write"),
        ("alter table keys add unique (name);", "refuses rows that others write"),
        ("execute format('drop table %s', one);", "takes a table, a column, a view or a function away"),
        ("truncate keys;", "empties a table"),
    ],
)
def test_what_takes_away_is_found(statement: str, expected: str) -> None:
    """Also amid other statements, in a procedure, and whatever the case."""
    assert faults(f"create table a (b text not null);\n{statement.upper()}\nselect 1;") == [expected]


@pytest.mark.parametrize(
    "statement",
    [
        "alter table keys add column a text not null default '', add column b int;",
        "alter table keys add column a int check (a > 0);",
        "create table a (b text not null unique, check (b <> ''));",
        "-- drop table keys\ncreate index a on keys (name);",
        "create unique index a on new_table (b);",
        "alter procedure a() rename to b;",
    ],
)
def test_what_adds_is_none(statement: str) -> None:
    """Columns with a default or without a demand, tables of their own, comments."""
    assert faults(statement) == []
