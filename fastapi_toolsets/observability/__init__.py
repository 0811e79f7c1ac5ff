"""What operations sees of callbacks, each on request: traces (:mod:`.opentelemetry`) and metrics (:mod:`.prometheus`)."""
