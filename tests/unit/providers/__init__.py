"""Protocols and providers of the gateway: recorded shapes, the official clients, and a stub that misbehaves."""
