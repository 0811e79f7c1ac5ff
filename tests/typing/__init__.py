"""What type checkers see of the public names.

``nox -s types`` gives the files here to mypy and basedpyright: an ``assert_type`` that no longer holds is an error of
theirs, and so is an ``ignore`` that no longer has anything to ignore. ``test_examples.py`` runs the files as well.
"""
