"""Makes the rows of the two tables and publishes them, a day at a time."""
