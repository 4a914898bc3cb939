"""A world with known truth: users, items, sessions, behaviour, experiments and their true lift."""
