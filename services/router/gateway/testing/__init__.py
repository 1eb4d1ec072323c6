"""Providers to test and to demonstrate against: recorded answers, and a stub that gives them, stalls, cuts and lies."""
