"""Where logic runs: threads and an asyncio loop."""
