"""What operations sees: observers of dispatches, spans, metrics, and the fields of log records."""
