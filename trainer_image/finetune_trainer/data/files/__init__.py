"""The bytes of a dataset's file → blocks and records, streamed, in any format. Knows nothing of columns.

    source, compression, utf16                the bytes behind a URI, counted and hashed on the way
    background                                hashes a large file in a second thread
    formats                                   detects the format
    json_lines, json_array, csv_rows          formats, row by row
    parquet ─▶ lines
    array_blocks, csv_blocks                  fast path for many valid rows at once
    duplicate_keys                            names that occur twice in one object
    csv_commands                              commands that rewrite a table as standard CSV

`read`, one level up, turns the result into rows.
"""
