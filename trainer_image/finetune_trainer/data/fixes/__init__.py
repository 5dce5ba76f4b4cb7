"""Next steps for rows that cannot be used, most of them a command to copy. Changes nothing.

    column_names                              missing columns, and which ones were probably meant
    invalid_rows                              how to fix rows that all have the same problem:
      conversations, nearly_json, tables      messages, text that is nearly JSON, cells
    exports, nested                           rows as other programs export them, and rows within objects
    chat_markup                               conversations as marked-up text
    split_turns                               a question and its answer in two places of a row
    jq                                        the commands themselves

They use the names of columns and the first rows, and never quote a row.
"""
