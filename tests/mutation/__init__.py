"""The mutation run: small changes to the core, one at a time, each of which some test should notice."""
