"""The database: its tables, connections, and one module for each thing stored."""
