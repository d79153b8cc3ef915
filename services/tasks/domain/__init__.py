"""What a task is, and the only ways in which it changes. Knows no network and no database."""
