"""How much slower than a plain session: measured side by side with the published library, in one interleaved run."""
