"""What a user can do about rows that cannot be used: next steps, most of them a command to copy. Changes nothing.

    column_names                              columns that are not there, and which one was meant
    invalid_rows                              what mends rows that all have the same problem:
      conversations, nearly_json, tables      messages, text that is nearly JSON, cells
    exports, nested                           rows as other programs export them, and within objects
    chat_markup                               conversations as marked text
    split_turns                               a question and its answer in two places of a row
    jq                                        the commands themselves

Each is told the names of columns and the first rows, and never quotes a row.
"""
