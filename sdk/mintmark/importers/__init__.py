"""Other registries, read where their credentials and their network are, and brought into the catalog.

A reader (`mlflow`, `sagemaker`, `huggingface`, `langfuse`, `folder`) turns what it finds into one form; `running` shows
what that would change, sends the bytes that are missing, and brings it in.
"""
