"""Programs that maintainers run by hand: ``python -m tools.<name>``."""
