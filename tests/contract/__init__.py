"""The contract, rule by rule: each test names in its docstring the rule that it proves."""
