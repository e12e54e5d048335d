"""How fast requests may be sent, how many at once, and what they cost."""
