"""Databases that live as long as a test."""

import os
import uuid
from typing import Any
from urllib.parse import urlsplit

import psycopg


def superuser_url() -> str:
    """The PostgreSQL that the tests may use as they like."""
    url = os.environ.get("SEGNO_TEST_POSTGRES_URL")
    assert url, "SEGNO_TEST_POSTGRES_URL is not set; `make test` sets it, or run tests/postgres.sh"
    return url


class Database:
    """A database of its own name, made empty."""

    def __init__(self, purpose: str) -> None:
        self.name = f"segno_{purpose}_{uuid.uuid4().hex[:12]}"
        self._administer(f'CREATE DATABASE "{self.name}"')
        # SQLAlchemy, in the applications, knows only this one of the two scheme names.
        server = urlsplit(superuser_url())._replace(scheme="postgresql")
        self.url = server._replace(path=f"/{self.name}").geturl()
        self._connection: psycopg.Connection | None = None

    def rows(self, statement: str, *values: Any) -> list[tuple]:
        """Runs one statement, committed at once."""
        if self._connection is None:
            self._connection = psycopg.connect(self.url, autocommit=True)
        # Without values, `%` is a character like any other.
        cursor = self._connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._administer(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    @staticmethod
    def _administer(statement: str) -> None:
        with psycopg.connect(superuser_url(), autocommit=True) as connection:
            connection.execute(statement)
