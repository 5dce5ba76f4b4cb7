"""Rows for a provider outside the cluster.

    rules ─▶ rows                             each provider's requirements for a dataset and a row
    file ─▶ token_estimate                    the file that it receives

A provider that runs our own trainer receives the files unchanged.
"""
