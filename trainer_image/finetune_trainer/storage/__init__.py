"""Where files are kept: folders that are written whole or not at all, object stores, archives that are carried in.

    durable                                   written whole or not at all: temporary name, checksums, fsync, rename
    store ─▶ store_clients                    a folder of an object store, and the clients that reach it
      store_errors, s3_words                  what their errors mean
      patience                                what may pass by itself is tried again
    artifact_store                            whole artifacts in a store
    archive                                   archives that are carried in, unpacked without trusting them
    lfs                                       pointers that stand in place of files

An error of a store or a disk is told in words of our own, which quote neither keys nor data.
"""
