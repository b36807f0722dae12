"""Where a database is (URL or file), and errors that say what is wrong with that place and what to do."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from routilux.errors import DatabaseFullError, DatabaseReadOnlyError, DatabaseUnavailableError
from routilux.store.errors import Failure, classify


def url_of(database: str | URL | Engine) -> URL:
    """Raises `DatabaseUnavailableError` if it is not a URL, and for an Engine in memory."""
    if not isinstance(database, Engine):
        try:
            return _checked(make_url(database))
        except (ArgumentError, ValueError) as error:  # ValueError: the port is not a number
            raise DatabaseUnavailableError(
                f"{_redacted(database)} is not a database URL; use sqlite:///path or postgresql://host/name"
            ) from error
    if database.dialect.name == "sqlite" and database.url.database in (None, "", ":memory:"):
        raise DatabaseUnavailableError(
            "an Engine in memory has its own database, which cannot be shared; pass 'sqlite://' or a file"
        )
    return database.url


def _checked(url: URL) -> URL:
    """Raises `ValueError` for a URL that no file and no server can have."""
    for part in (url.username, url.password, url.host, url.database):
        # encode() raises a ValueError for a lone surrogate, too
        if part is not None and "\x00" in str(part).encode().decode():
            raise ValueError("it contains U+0000")
    if url.host is not None:
        url.host.encode("idna")
    return url


def _redacted(database: object) -> str:
    """The given value for an error text, without a possible password."""
    if not isinstance(database, str):
        return f"a database of type {type(database).__name__}"
    shown = re.sub(r"^([\w+]+://)?.*@", r"\1***@", database, flags=re.DOTALL)
    shown = re.sub(r"(password=)[^&]*", r"\1***", shown)
    return repr(shown if len(shown) <= 200 else shown[:200] + "…")


def file_of(database: str | Path | URL) -> str:
    """The absolute path in a SQLite URL. Raises `DatabaseUnavailableError` if it is not a plain file."""
    if isinstance(database, str) and "://" in database:
        database = make_url(database)
    if isinstance(database, URL):
        if database.get_backend_name() != "sqlite":
            raise DatabaseUnavailableError(
                f"{database.render_as_string()} is not a SQLite URL; use create_engine()"
            )
        database = database.database or ""
    name = str(database)
    if name in ("", ":memory:") or name.startswith("file:"):
        raise DatabaseUnavailableError(
            f"{name or ':memory:'!r} is not a plain file; use sqlite:///path/to/file.db"
        )
    return os.path.abspath(name)


def check_place(path: Path) -> None:
    """Raises an error that says what to do if the file cannot be opened or written."""
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # the name is too long, links form a loop, or a directory is not accessible
        raise DatabaseUnavailableError(f"{path} cannot be opened: {error.strerror}") from error
    if not path.parent.is_dir():
        raise DatabaseUnavailableError(f"{path}: the directory {path.parent} does not exist; create it first")
    if path.is_dir():
        raise DatabaseUnavailableError(f"{path} is a directory; name a file in it")
    for place in (path, path.parent):  # SQLite creates the -wal and -shm files beside the database
        if place.exists() and not os.access(place, os.W_OK):
            raise DatabaseReadOnlyError(f"{path} cannot be written: no permission to write {place}")


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn SQLite errors of the block into errors that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise DatabaseUnavailableError(f"{path} is not a SQLite database; name another file") from error
        match classify(error):
            case Failure.READ_ONLY:
                raise DatabaseReadOnlyError(f"{path} cannot be written: {error}") from error
            case Failure.FULL:
                raise DatabaseFullError(f"{path}: the disk is full; make room ({error})") from error
        raise DatabaseUnavailableError(f"{path} cannot be opened: {error}") from error


def named(error: BaseException, url: URL) -> BaseException:
    """The error as one of our own for a caller.

    Returns it unchanged if it is not about the whole database.
    """
    try:
        check_named(error, url)
    except DatabaseUnavailableError as ours:
        return ours
    return error


def check_named(error: BaseException, url: URL, *, is_read: bool = False) -> None:
    """Raises one of our own errors if this driver error is about the whole database. Otherwise returns."""
    reason = str(getattr(error, "orig", error)).partition("\n")[0]
    match classify(error):
        case Failure.READ_ONLY:
            raise DatabaseReadOnlyError(f"{url.render_as_string()} takes no writes: {reason}") from error
        case Failure.FULL:
            message = f"{url.render_as_string()}: the disk is full; make room ({reason})"
            raise DatabaseFullError(message) from error
        case Failure.LOST | Failure.RETRY if not isinstance(error, DatabaseUnavailableError):
            raise DatabaseUnavailableError(f"{url.render_as_string()} did not answer: {reason}") from error
    if getattr(getattr(error, "orig", None), "sqlstate", None) == "42501":  # insufficient_privilege
        if is_read:
            raise DatabaseUnavailableError(f"{url.render_as_string()} refuses this user: {reason}") from error
        message = f"{url.render_as_string()} takes no writes from this user: {reason}"
        raise DatabaseReadOnlyError(message) from error
