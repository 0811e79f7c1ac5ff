"""The order desk as a page that shows each event as it is delivered: ``python -m fastapi_toolsets.demo --serve``."""
