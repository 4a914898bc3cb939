"""Exact scoring with the first layer computed once a request and once an item."""
