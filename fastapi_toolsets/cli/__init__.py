"""The command ``fastapi-toolsets``: moves code from version 2 to version 3, and lists what listens to what."""
