"""Connections to SQLite and Postgres and what is special about each."""
