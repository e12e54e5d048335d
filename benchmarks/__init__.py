"""Measures the cost of nightly runs on the real stack, and of alternatives on the same servers: ``make bench``."""
