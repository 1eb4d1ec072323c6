"""Protocols and providers of the gateway, by recorded shapes, by the official clients, and by a stub that misbehaves."""
