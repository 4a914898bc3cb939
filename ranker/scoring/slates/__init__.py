"""From scores to slates: constraints, exploration with known propensities, the exposure log."""
