"""The event sessions with what people use beside them: their own session classes, SQLModel, Flask, scoped sessions."""
