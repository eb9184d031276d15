"""The queue between decoding and the database."""
