"""Scores phases against calls that people have labelled."""
