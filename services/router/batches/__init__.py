"""Batches: a file of rows asked of a group, each through the gateway, and a file of their answers in the same order.

`domain` says what a job is and reads its rows; `files` reads and writes JSONL and Parquet; `asking` asks the gateway;
`run` takes one job from where it is to its end; `store` keeps jobs and answers in Postgres.
"""
