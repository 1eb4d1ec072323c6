"""The shipper: takes what gateways have spooled into the inference tables, each row exactly once, and says it on Kafka.

A process of its own beside the gateways of a machine, so that no request waits for Postgres. It keeps nothing itself:
how far a spool is shipped stands in Postgres, in the transaction that the rows are in.
"""
