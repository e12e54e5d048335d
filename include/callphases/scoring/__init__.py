"""Says how good phases are, against calls that people have labelled."""
