"""Query encoders: a query (text, audio, ...) becomes a condition vector."""
