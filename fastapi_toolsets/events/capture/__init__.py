"""From a flush to the journal: what was written, and what has to be read for it."""
