"""What is written past the unit of work by bulk statements: found out before and after they run."""
