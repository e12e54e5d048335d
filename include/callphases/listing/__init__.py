"""Finds the recordings of a day in the bucket, and splits them into chunks."""
