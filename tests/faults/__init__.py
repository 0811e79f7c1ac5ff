"""What breaks around a commit: connections, disks, locks, callbacks, and many of them at once."""
