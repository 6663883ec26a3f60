"""GraphQL operations on saved views of a project."""

OPERATIONS: dict = {}
