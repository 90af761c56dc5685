"""A controlled study: does forgetting help, on data whose noise is planted and therefore known?

`grid` says what is run, `run` runs it through the product, `records` keeps what came out and `made` what made it,
`table` makes the numbers of it, `verdict` states what they say, `markdown` and `plot` show them. Run as
`python -m benchmarks.study`.
"""
