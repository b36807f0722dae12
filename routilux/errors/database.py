"""The database does not answer, or has the wrong schema."""

from __future__ import annotations

from routilux.errors.root import RoutiluxError


class DatabaseUnavailableError(RoutiluxError, RuntimeError):
    """The database did not answer, or did not accept a change, in time."""


class DatabaseReadOnlyError(DatabaseUnavailableError):
    """The database accepts no writes."""


class DatabaseFullError(DatabaseUnavailableError):
    """The disk of the database is full."""


class SchemaError(RoutiluxError, RuntimeError):
    """This version cannot use the schema of the database. `database` is its URL without the password."""

    def __init__(self, database: str, problem: str) -> None:
        self.database = database
        super().__init__(f"{database}: {problem}")


class SchemaMissingError(SchemaError):
    """The database has no Routilux tables."""

    def __init__(self, database: str) -> None:
        super().__init__(database, "no Routilux tables; run `routilux db upgrade`")


class SchemaTooOldError(SchemaError):
    """An older version made the tables."""

    def __init__(self, database: str, current: str | None, needed: str) -> None:
        self.current = current
        self.needed = needed
        super().__init__(
            database,
            f"the schema is at revision {current}, this version needs {needed};"
            " stop the other runtimes and run `routilux db upgrade`",
        )


class SchemaTooNewError(SchemaError):
    """A newer version made the tables."""

    def __init__(self, database: str, current: str | None, needed: str) -> None:
        self.current = current
        self.needed = needed
        super().__init__(
            database,
            f"the schema is at revision {current}, this version knows {needed};"
            " install the version that made it",
        )


class SchemaForeignError(SchemaError):
    """Tables have our names, but Routilux did not make them."""

    def __init__(self, database: str) -> None:
        super().__init__(
            database,
            "has tables named routilux_… that Routilux did not make; use another database or schema",
        )
