"""The parts of the event system, each by itself."""
