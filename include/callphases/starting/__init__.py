"""What ``callphases init`` does: reads a few keys of a bucket, and proposes a pipeline for it."""
