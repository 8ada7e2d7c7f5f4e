"""What a network finds: validation, search, bank's limit, reports."""
