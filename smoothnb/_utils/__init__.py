"""Plumbing that every chapter of the package uses."""
