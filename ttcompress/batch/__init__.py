"""Many models, many recipes: a manifest comes in, jobs run in workers, one result goes out.

manifest -> jobs --+-> cached ------------+
                   +-> engine -> workers -+-> outcomes -> result (table, JSON, JUnit, Markdown)
"""
