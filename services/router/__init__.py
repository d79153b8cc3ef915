"""The public operations in every dialect: admission, the choice of who answers, accounting."""
