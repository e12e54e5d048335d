"""Has a language model divide transcripts into phases."""
