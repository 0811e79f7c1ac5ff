"""From a COMMIT to the callbacks: in order, first in first out, whatever one of them does."""
