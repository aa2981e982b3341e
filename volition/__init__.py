"""Volition: learning by reward."""

__version__ = "0.1.0"
