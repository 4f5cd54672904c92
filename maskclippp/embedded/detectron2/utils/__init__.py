"""Utilities that are independent of models and data."""
