"""The demonstration: the product on this machine alone, with sample calls, an S3 server and speechbox."""
