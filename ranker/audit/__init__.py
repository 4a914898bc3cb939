"""A first look at a log of any origin: what its columns mean, and what it can and cannot answer."""
