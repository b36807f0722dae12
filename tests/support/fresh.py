"""An empty database beside the one of the fixture `database`, on the same server or in the same kind of
file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, make_url, pool


@contextmanager
def empty_database(like: str, folder: Path) -> Iterator[str]:
    """Its URL; no table in it, on SQLite no file yet. Gone afterwards."""
    url = make_url(like)
    name = f"fresh_{uuid4().hex}"
    if url.get_backend_name() == "sqlite":
        yield f"sqlite:///{folder / name}.db"
        return
    server = create_engine(
        url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=pool.NullPool
    )
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
