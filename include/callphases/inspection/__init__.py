"""Shows published calls, and checks whether a pipeline can run."""
