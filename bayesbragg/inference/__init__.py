"""Likelihoods, the one log density, and the ways to look at it."""
