"""Shows what was published, and checks whether all that a run needs is there."""
