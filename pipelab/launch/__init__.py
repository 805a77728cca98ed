"""Starts a plan on real processes, one per stage, and gathers what they did."""
