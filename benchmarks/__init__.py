"""What a night costs, measured on the real stack, beside other ways of doing it on the same servers: ``make bench``."""
