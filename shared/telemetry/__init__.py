"""Logs, traces and metrics: one module each, and every attribute name in one place."""
