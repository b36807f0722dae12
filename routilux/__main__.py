"""`python -m routilux`: the same as the command `routilux`."""

from __future__ import annotations

from routilux_service.cli import main

if __name__ == "__main__":
    main()
