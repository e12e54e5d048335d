"""callphases: from a bucket of call recordings to a table of call phases."""
