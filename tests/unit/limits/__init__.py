"""Tests of the arithmetic of limits."""
