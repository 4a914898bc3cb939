"""Slates and their outcomes become the log's next impressions."""
