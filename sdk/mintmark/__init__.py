"""Client of Mintmark: publish signed events, call the services, read what they say."""

from mintmark.client import Client, Problem
from mintmark.events import CloudEvent, publish, signed
from mintmark.settings import Connection

__all__ = ["Client", "CloudEvent", "Connection", "Problem", "publish", "signed"]
