"""A small Django project, as people have them: what the tests of the adapter for asgiref serve."""
