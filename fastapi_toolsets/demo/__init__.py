"""A small order desk that shows both front-ends at work: ``python -m fastapi_toolsets.demo``."""
