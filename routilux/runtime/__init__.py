"""The runtime: threads and lifetimes around the core and the store."""

from routilux.runtime.client import Client
from routilux.runtime.door import PostItem as Post
from routilux.runtime.posting import Posted
from routilux.runtime.reading import DeadLetter
from routilux.runtime.runtime import Runtime, get_runtime_instance

__all__ = ["Client", "DeadLetter", "Post", "Posted", "Runtime", "get_runtime_instance"]
