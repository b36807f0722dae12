"""The runtime: threads and lifetimes around the core and the store."""

from routilux.runtime.client import Client
from routilux.runtime.dead_letter import DeadLetter
from routilux.runtime.handles import Posted
from routilux.runtime.runtime import Runtime, get_runtime_instance
from routilux.runtime.validation import PostItem as Post

__all__ = ["Client", "DeadLetter", "Post", "Posted", "Runtime", "get_runtime_instance"]
