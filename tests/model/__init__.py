"""A model that argues with the library: random programs, and an oracle that believes the database only."""
