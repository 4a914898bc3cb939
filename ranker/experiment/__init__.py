"""The offline A/B laboratory: two arms, simulated outcomes, lifts with intervals."""
