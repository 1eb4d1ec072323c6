"""Events between services: outbox and relay on the way out, inbox, parking and dead letters on the way in."""
