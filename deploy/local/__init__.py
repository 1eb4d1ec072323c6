"""A whole Mintmark on one machine: PostgreSQL and Apache Kafka from wheels and locked jars, and the services on top.

Nothing here is used in a cluster; `deploy/helm` does that.
"""
