"""The search for score weights."""
