"""Connections to SQLite and Postgres, and the special handling that each database needs."""
