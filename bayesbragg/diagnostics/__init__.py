"""Residuals, prediction offsets and plots."""
