"""Priors: bounds, centers and betas as distributions; cell constraints of the crystal systems; defaults."""
