"""The demo: callphases on one machine, with sample calls, an S3 server and speechbox."""
