"""Rows for a provider outside of the cluster.

    rules ─▶ rows                             what each provider asks of a dataset and of a row
    file ─▶ token_estimate                    the file that it gets

A provider that runs our own trainer gets the files as they are.
"""
