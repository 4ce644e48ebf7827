"""Which backends there are, what they serve and how they are."""
