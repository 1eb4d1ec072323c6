"""`python -m services.admin provision|migrate|topics`: what is done once before services run, safe to repeat."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from shared.bus import topics
from shared.bus.transport import KafkaSettings
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.errors import Invalid, MintmarkError
from shared.events import SERVICES
from shared.events import topics as every_topic


def dsn_of(service: str) -> str:
    """The service's DSN from the environment. Raises Invalid."""
    name = f"MINTMARK_{service.upper()}_DSN"
    if name not in os.environ:
        raise Invalid(f"{name} is not set; it is the Postgres address of service {service}")
    return os.environ[name]


async def make_roles() -> None:
    """A role and a schema for each service; needs MINTMARK_ADMIN_DSN."""
    if "MINTMARK_ADMIN_DSN" not in os.environ:
        raise Invalid("MINTMARK_ADMIN_DSN is not set; roles and schemas are made by an administrator")
    await provision(os.environ["MINTMARK_ADMIN_DSN"], {service: dsn_of(service) for service in SERVICES})
    print("roles and schemas:", ", ".join(SERVICES))


async def make_tables() -> None:
    """Every service's migrations, each as its own role."""
    for service in SERVICES:
        applied = await migrate(Database(dsn_of(service), service), of_service(service))
        print(f"{service}: {', '.join(applied) or 'up to date'}")


async def make_topics() -> None:
    """Every declared topic; says which present ones differ."""
    differences = await topics.ensure(KafkaSettings(), every_topic())
    for difference in differences:
        print("differs:", difference)
    print("topics: as declared" if not differences else f"topics: {len(differences)} differences, see above")


COMMANDS = {"provision": make_roles, "migrate": make_tables, "topics": make_topics}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.admin", description=__doc__)
    parser.add_argument("commands", nargs="+", choices=COMMANDS)
    try:
        for command in parser.parse_args().commands:
            asyncio.run(COMMANDS[command]())
    except (MintmarkError, OSError) as error:
        print(f"mintmark: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
