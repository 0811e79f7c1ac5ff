"""The tests of ``fastapi_toolsets``: one scenario table, run on both front-ends and on every database."""
