"""Other ways of doing a night, written for the bench: what callphases is measured beside."""
