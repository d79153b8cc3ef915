"""The schema `tasks`, by Alembic."""
