"""Has recordings transcribed by the speech service."""
