"""The documented import path of the error strategies."""

from routilux.core.error_handler import ErrorHandler, ErrorStrategy

__all__ = ["ErrorHandler", "ErrorStrategy"]
