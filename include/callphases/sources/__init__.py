"""Reads what is known of a recording outside its key: object, audio file, documents beside it, lists."""
