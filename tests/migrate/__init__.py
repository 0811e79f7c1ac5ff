"""The codemod: what it makes of pieces of code, of whole applications, and of files as they lie on the disk."""
