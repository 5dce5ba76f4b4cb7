"""The bytes of a dataset's files → blocks and records, streamed, whatever their format. Knows no columns.

    source, compression, utf16                the bytes of a URI, counted and hashed on the way
    background                                a large file, hashed by a second thread
    formats                                   which format they have
    json_lines, json_array, csv_rows          formats, row by row
    parquet ─▶ lines
    array_blocks, csv_blocks                  many rows at once, where nothing is wrong with any
    duplicate_keys                            names that stand twice in one object
    csv_commands                              commands that write a table as CSV has it

`read` above it makes rows of what they find.
"""
