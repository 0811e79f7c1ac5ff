"""The codemod from version 2 to version 3: what ``fastapi-toolsets migrate v3`` reads, decides and rewrites."""
