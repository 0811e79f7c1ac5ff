"""What must work where greenlet is not installed. Nothing here imports from the other tests."""
