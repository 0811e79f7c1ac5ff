"""Twins: random programs run on a plain session and on one with events, which have to do, show and raise the same."""
