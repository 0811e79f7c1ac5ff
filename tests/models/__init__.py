"""The column mixins: their values, their columns, and what migrations make of them."""
