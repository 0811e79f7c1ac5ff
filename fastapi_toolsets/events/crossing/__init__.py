"""The way to an event loop and back: threads, loops and anyio, and what a cancellation does to whoever waits."""
