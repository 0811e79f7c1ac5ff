"""What operations sees of callbacks, on request: :mod:`.opentelemetry` makes traces, :mod:`.prometheus` metrics."""
