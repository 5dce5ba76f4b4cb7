"""Where files are kept: folders that are written atomically, object stores, archives that are brought in.

    durable                                   atomic writes: temporary name, checksums, fsync, rename
    store ─▶ store_clients                    a folder of an object store, and clients for the stores
      store_errors, s3_words                  what their errors mean
      patience                                retries of errors that may be temporary
    artifact_store                            complete artifacts in a store
    archive                                   untrusted archives, safely unpacked
    lfs                                       pointers in place of files

Error messages about stores and disks are our own, and quote neither keys nor data.
"""
