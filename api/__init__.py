"""The results service: stores scores and events, answers rates and candidates."""
