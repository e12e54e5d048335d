"""Finds a day's recordings in the bucket and splits them into chunks."""
