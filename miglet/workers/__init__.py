"""The workers: each sees one part of the world, reports facts and obeys orders."""
