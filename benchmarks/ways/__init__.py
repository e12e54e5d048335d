"""Alternatives to callphases, written for the benchmark."""
