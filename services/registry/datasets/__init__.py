"""Datasets: golden sets with a lock, rows compared by their hashes, Croissant in and out, retention with a receipt.

- rows.py reads the rows of parquet, csv and jsonl in batches and gives each its canonical form and hash.
- sketches.py keeps the hashes of a split: all of them up to some millions of rows, a sample of them beyond.
- retention.py and worker.py end what may be kept no longer.
"""
