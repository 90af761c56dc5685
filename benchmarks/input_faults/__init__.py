"""Bad input: what can be wrong with a recipe, data, models, stores and benchmarks, and what the user is told.

A case is a name, how the bad thing is made, and what its message must say. The cases are in `recipes`, `lines`,
`rows`, `parquet`, `models`, `tasks` and `stores`; `meeting` lets the code meet one. The tests run them, and so does
`python -m benchmarks input`.
"""
